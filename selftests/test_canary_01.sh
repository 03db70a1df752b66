#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The detectors of the debug kernel are on: each mistake that is planted in Rust code is reported, and the runner takes the
# report for a fault.
# needs-kernel: debug
# needs-own-boot: a reported fault switches lockdep and KASAN off
# needs-own-module: selftests/canary/canary.ko
# needs-fault: "BUG: sleeping function called from invalid context"
# needs-fault: "WARNING: possible circular locking dependency detected"
# needs-fault: "BUG: KASAN: slab-use-after-free"
# needs-fault: "INFO: task insmod:[0-9]+ blocked for more than"
# needs-fault: "kmemleak: [0-9]+ new suspected memory leaks"
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# plant N: loading the canary always fails, after the mistake was made.
plant() {
	insmod /modules/canary.ko plant="$1" && bail "the canary was loaded"
}

# reported TEXT PATTERN
reported() {
	if dmesg | grep -q "$2"; then pass "$1"; else fail "$1"; fi
}

# A pointer may be left on some stack for a while.
leak_found() {
	echo scan >/sys/kernel/debug/kmemleak
	dmesg | grep -q "new suspected memory leaks"
}

plan 5
plant 1
reported "a sleep in atomic context is reported" "BUG: sleeping function called from invalid context"
plant 2
reported "a lock inversion is reported" "possible circular locking dependency detected"
plant 3
reported "a use after free is reported" "BUG: KASAN: slab-use-after-free in .*canary"
echo 2 >/proc/sys/kernel/hung_task_timeout_secs
plant 5
reported "a hung task is reported" "INFO: task insmod:[0-9]* blocked for more than"
plant 4
eventually leak_found
reported "a leak is reported" "kmemleak: [0-9]* new suspected memory leaks"
finish
