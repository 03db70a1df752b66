#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The machine stops at once: after flushed writes, while the device is attached, and in the middle of a commit.
# needs-file: image 67117056 lun
# needs-target: image
# needs-file: disk 256M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# needs-own-boot: boots three times
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

plan 15
if [ "$BOOT" = 1 ]; then
	check "a disk is laid out" lay_out "$(disk disk)"
	check "the module attaches it" load disk="$(disk disk)"
	check "blocks are written" $guestdisk stamp /dev/imgstream0 mine --start 3000 --blocks 500
	check "blocks are fetched" $guestdisk verify /dev/imgstream0 image --start 1000 --blocks 500
	check "blocks are discarded" blkdiscard -o $((6000 * 4096)) -l $((50 * 4096)) /dev/imgstream0
	check "all of that is flushed" sync /dev/imgstream0
	next_boot
fi
if [ "$BOOT" = 2 ]; then
	check "the disk is attached after an unclean stop" load disk="$(disk disk)"
	check "what was flushed is there" $guestdisk verify /dev/imgstream0 mine --start 3000 --blocks 500
	check "what was discarded stays away" $guestdisk verify /dev/imgstream0 zero --start 6000 --blocks 50
	check "the rest is the image" $guestdisk verify /dev/imgstream0 image --start 3500 --blocks 2500
	check "a slow commit begins" imgstreamctl commit --yes --max 16384
	eventually half_way
	next_boot_now
fi
check "a disk that is being committed is attached" load disk="$(disk disk)"
imgstreamctl commit --yes --now
eventually committed
check "what was written reads the same" $guestdisk verify /dev/imgstream0 mine --start 3000 --blocks 500
check "the module goes" unload
check "everything is home" sh -c "
	$guestdisk verify $(disk disk) image --blocks 3000 &&
	$guestdisk verify $(disk disk) mine --start 3000 --blocks 500 &&
	$guestdisk verify $(disk disk) image --start 3500 --blocks 2500 &&
	$guestdisk verify $(disk disk) zero --start 6000 --blocks 50 &&
	$guestdisk verify $(disk disk) image --start 6050 --blocks 10334"
finish
