#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A disk with worn places: they cannot be read until they are written again. What the repository has as well is fetched again;
# what only the disk had is lost to its readers, and to nobody else, until it is written anew. A commit writes to places that
# could not be read; of the two superblocks one is enough.
# needs-kernel: debug
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

below=$(disk disk)
worn_disk() {
	dmsetup --noudevsync create weak --table "0 $(blockdev --getsz "$below") dust $below 0 4096" &&
		dmsetup message weak 0 quiet && dmsetup message weak 0 enable
}
# wear FIRST_BYTE BLOCKS
wear() {
	wear_block=$(($1 / 4096)) wear_end=$(($1 / 4096 + $2))
	while [ "$wear_block" -lt "$wear_end" ]; do
		dmsetup message weak 0 addbadblock "$wear_block" || return
		wear_block=$((wear_block + 1))
	done
}
worn() {
	dmsetup message weak 0 countbadblocks | sed 's/[^0-9]*\([0-9]*\).*/\1/'
}
# fetched_now FIRST BLOCKS: they are the image's; says how many of them had to be fetched.
fetched_now() {
	fetched_before=$(value fetched_bytes)
	echo 3 >/proc/sys/vm/drop_caches
	$guestdisk verify /dev/imgstream0 image --start "$1" --blocks "$2" >&2 &&
		echo $((($(value fetched_bytes) - fetched_before) / 4096))
}
read_block() {
	dd if=/dev/imgstream0 of=/tmp/block bs=4096 skip="$1" count=1 iflag=direct
}

plan 25
check "a disk of which places can wear" worn_disk
layout=$(lay_out "$weak")
useful=$(place U "$layout")
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
eventually idle
equal "blocks are fetched" 100 "$(fetched_now 5000 100)"
check "places of some wear" wear "$(slot 5040)" 10
equal "they are fetched again, and only they" 10 "$(fetched_now 5000 100)"

check "blocks are written" $guestdisk stamp /dev/imgstream0 mine --start 6000 --blocks 20
check "places of some wear" wear "$(slot 6005)" 3
check "one of them cannot be read" says "Input/output error" read_block 6005
refuse "nor be written in part" dd if=/dev/zero of=/dev/imgstream0 bs=512 seek=$((6006 * 8)) count=1 oflag=direct
check "those around can" $guestdisk verify /dev/imgstream0 mine --start 6000 --blocks 5
equal "nothing comes of it" 13 "$(worn)"
check "they are written anew" $guestdisk stamp /dev/imgstream0 other --start 6005 --blocks 3
equal "which heals their places" 10 "$(worn)"
check "and they are read" $guestdisk verify /dev/imgstream0 other --start 6005 --blocks 3

check "the device goes" imgstreamctl detach
check "a superblock's place wears" wear "$(place C "$layout")" 1
check "the other one is enough" imgstreamctl attach "$weak"
imgstreamctl fill off
check "homes wear, and blocks that are not home yet" wear $((7000 * 4096)) 10
check "of which some are here" wear "$(slot 5050)" 10
check "a commit begins" imgstreamctl commit --yes --now
eventually committed
pass "and ends"
check "what was written is right" $guestdisk verify /dev/imgstream0 other --start 6005 --blocks 3
check "the device goes again" imgstreamctl detach
check "the module goes" unload
check "everything is home" sh -c "
	$guestdisk verify $weak image --blocks 6000 &&
	$guestdisk verify $weak other --start 6005 --blocks 3 &&
	$guestdisk verify $weak image --start 6020 --blocks 2172"
weak_disk_away
finish
