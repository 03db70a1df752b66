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
# shellcheck source-path=SCRIPTDIR/guest
. /tests/common.sh

status=/sys/block/imgstream0/imgstream
guestdisk=imgstream-guestdisk
below=$(disk disk)
sectors=$((192 << 11))
# The home of a block of the second batch, which nobody writes before the first one is flushed.
aside=$((6000 * 8))
value() {
	cat "$status/$1"
}
# table: the disk is made of what is said from now on.
table() {
	dmsetup --noudevsync suspend --noflush weak &&
		dmsetup --noudevsync reload weak &&
		dmsetup --noudevsync resume weak
}
linear() {
	echo "$1 $2 linear $below $1"
}
bad_slot() {
	{
		linear 0 "$1"
		echo "$1 8 error"
		linear $(($1 + 8)) $((sectors - $1 - 8))
	} | table
}
# Everything works but flushes: a flush goes to all parts of the disk.
no_flush() {
	{
		linear 0 $aside
		echo "$aside 8 flakey $below $aside 0 1 1 error_writes"
		linear $((aside + 8)) $((sectors - aside - 8))
	} | table
}
all_good() {
	linear 0 $sectors | table
}
stopped() {
	case $(value commit) in stopped:*) true ;; *) false ;; esac
}
stopped_for() {
	[ "$(value commit)" = "stopped: $1" ]
}
committed() {
	[ "$(value commit)" = done ]
}
flush() {
	dd if=/dev/null of=/dev/imgstream0 count=0 conv=notrunc,fsync
}

plan 17
check "a disk that can be weakened" dmsetup --noudevsync create weak --table "0 $sectors linear $below 0"
layout=$($guestdisk disk /dev/dm-0 --portal "$PORTAL" --target "$(target_name image)")
useful=$(echo "$layout" | sed 's/.* U \([0-9]*\) .*/\1/')
check "the module attaches it" load disk=/dev/dm-0
imgstreamctl fill off
check "a block is written" $guestdisk stamp /dev/imgstream0 mine --start 100 --blocks 1
check "and cannot be read" bad_slot $((useful / 512 + 800))
imgstreamctl commit --yes --now
eventually stopped
check "the commit stops there, with the first batch fetched" [ "$(value copied)" = 0 ]
# Then the batch's flush is the only one that comes.
check "all is recorded" flush
check "that place is good again, and flushes fail" no_flush
check "the commit tries again" imgstreamctl resume
eventually stopped_for "the disk cannot be flushed"
pass "and stops: the disk cannot be flushed"
check "the disk takes flushes again" all_good
refuse "the guest's flush fails" flush
check "the commit can be told to try again" imgstreamctl resume
eventually stopped_for "the control area cannot be written"
equal "but nothing moves" 0 "$(value copied)"
check "the module goes" unload
check "with the next attach" load disk=/dev/dm-0
eventually committed
pass "the commit goes on to its end"
check "the module goes again" unload
dmsetup --noudevsync remove weak
finish
