#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A commit that is paused keeps nothing in memory: what the disk cannot read was fetched for the next batch, is not held for
# as long as the pause takes, and is fetched once more when the commit goes on.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup dd
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# What is fetched at a time for a commit, in bytes.
rescue=$((16 * 4096))
fetched() {
	idle && [ "$(value fetched_bytes)" = "$1" ]
}
# Each time it is told to go on it may move one batch; then the rate that it is held to keeps it for hours.
go_on() {
	imgstreamctl resume && [ "$(value copied)" -gt $((1020 * 4096)) ]
}

plan 10
check "a disk that can be weakened" weak_disk disk
useful=$(place U "$(lay_out "$weak")")
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
check "all is fetched" dd if=/dev/imgstream0 of=/dev/null bs=1M
eventually idle
equal "nothing is missing" 0 "$(value blocks_absent)"
before=$(value fetched_bytes)
weaken "$(slot 1020)" 4096
imgstreamctl commit --yes --max 1
eventually fetched $((before + rescue))
pass "what cannot be read is fetched again"
equal "nothing has moved" 0 "$(value copied)"
check "the commit is paused" imgstreamctl pause
eventually go_on
pass "and goes on"
equal "the pause held nothing" $((before + 2 * rescue)) "$(value fetched_bytes)"
check "the module goes" unload
weak_disk_away
finish
