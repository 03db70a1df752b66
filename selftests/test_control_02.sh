#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Disks that are in use, have blocks of 4 KiB, or carry one of two migrations, and another image behind the portal: the
# exit code, one sentence, and the disk as it was.
# needs-file: plain 64M
# needs-disk: plain
# needs-file: one 192M
# needs-disk: one
# needs-file: two 192M
# needs-disk: two
# needs-module: loop
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget losetup
# needs-own-boot: looks at all disks
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# ends CODE WORDS COMMAND...: COMMAND ends with CODE and one sentence that has WORDS.
ends() {
	ends_code=$1
	ends_words=$2
	shift 2
	ends_said=$("$@" 2>&1 >/dev/null </dev/null)
	ends_found=$?
	echo "exit code $ends_found: $ends_said"
	[ "$ends_found" = "$ends_code" ] && [ "$(echo "$ends_said" | wc -l)" = 1 ] && echo "$ends_said" | grep -q "$ends_words"
}
# mentions WORDS COMMAND...: one of several sentences has WORDS.
mentions() {
	mentions_words=$1
	shift
	"$@" 2>&1 >/dev/null | grep "$mentions_words"
}
sums() {
	for name in plain one two; do
		sha256sum "$(disk $name)"
	done
}
wrong_image() {
	grep -q "^disconnected: wrong image" "$status/connection"
}

make_image
make_other_image
truncate -s 64M /tmp/4kn
mkswap "$(disk plain)" >/dev/null

plan 15
serve /tmp/image
for name in one two; do
	check "disk $name is laid out" lay_out_own "$(disk $name)"
done
stop_serving
before=$(sums)

swapon "$(disk plain)"
check "a disk in use is not prepared" ends 15 "is used as swap" imgstreamctl prepare "$(disk plain)" --out /tmp/out
check "nor planned with" mentions "is used as swap" imgstreamctl plan --image /tmp/image --disk "$(disk plain)"
swapoff "$(disk plain)"

# busybox has a losetup of its own.
large=$(/usr/sbin/losetup --sector-size 4096 --find --show /tmp/4kn)
check "a disk with blocks of 4 KiB is not prepared" \
	ends 17 "logical blocks of 4096 bytes" imgstreamctl prepare "$large" --out /tmp/out
check "nor planned with" mentions "logical blocks of 4096 bytes" imgstreamctl plan --image /tmp/image --disk "$large"
/usr/sbin/losetup --detach "$large"
refuse "there is no output" ls /tmp/out

check "of two migrations none is attached" ends 33 "more than one disk" imgstreamctl attach --scan
check "nor started" ends 33 "more than one disk" imgstreamctl boot --once

serve /tmp/other
check "a disk of another image is not attached" \
	ends 40 "another image is behind" imgstreamctl attach "$(disk one)"
stop_serving
refuse "and the module was not asked for it" ls $status
equal "the disks are as they were" "$before" "$(sums)"

check "the module attaches it and waits" load disk="$(disk one)"
serve /tmp/other
eventually wrong_image
check "with another image no commit begins" ends 40 "another image is behind" imgstreamctl commit --yes
equal "and the source can still come back" streaming "$(value state)"
stop_serving
unload
finish
