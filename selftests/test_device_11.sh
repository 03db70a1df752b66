#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A disk that fails one flush of a commit and succeeds with the next has lost something and will not say so again: no
# flush of the guest succeeds any more, the commit stays where it is, and the next attach goes on.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod dm_flakey
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# The home of a block of the second batch, which nobody writes before the first one is flushed.
aside=$((6000 * 4096))
stopped_for() {
	[ "$(value commit)" = "stopped: $1" ]
}
flush() {
	dd if=/dev/null of=/dev/imgstream0 count=0 conv=notrunc,fsync
}

plan 17
check "a disk that can be weakened" weak_disk disk
layout=$(lay_out "$weak")
useful=$(place U "$layout")
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
check "a block is written" $guestdisk stamp /dev/imgstream0 mine --start 100 --blocks 1
check "and cannot be read" weaken $((useful + 100 * 4096)) 4096
imgstreamctl commit --yes --now
eventually stopped
check "the commit stops there, with the first batch fetched" [ "$(value copied)" = 0 ]
# Then the batch's flush is the only one that comes.
check "all is recorded" flush
check "that place is good again, and flushes fail" no_flush $aside
check "the commit tries again" imgstreamctl resume
eventually stopped_for "the disk cannot be flushed"
pass "and stops: the disk cannot be flushed"
check "the disk takes flushes again" weaken
refuse "the guest's flush fails" flush
check "the commit can be told to try again" imgstreamctl resume
eventually stopped_for "the control area cannot be written"
equal "but nothing moves" 0 "$(value copied)"
check "the module goes" unload
check "with the next attach" load disk="$weak"
eventually committed
pass "the commit goes on to its end"
check "the module goes again" unload
weak_disk_away
finish
