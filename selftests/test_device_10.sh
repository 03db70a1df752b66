#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The power is cut while a file system on a partition of the device is being written, once while it is streamed and once
# while it is committed, and the disk loses what was not flushed. Every file that was synced is there afterwards.
# needs-file: image 67117056 lun
# needs-target: image
# needs-file: disk 256M
# needs-disk: disk volatile
# needs-file: log 1M
# needs-disk: log
# needs-module: ext4
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl mke2fs e2fsck
# needs-own-boot: boots three times
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

part=/dev/imgstream0p1
log=$(disk log)
attach() {
	load disk="$(disk disk)" && eventually [ -b "$1" ]
}
# contents NUMBER: of a file; some fill less than a block, some several.
contents() {
	yes "file $1" | head -c $((($1 % 13 + 1) * 1700))
}
# The number of the last file that was synced, which this disk never forgets.
synced() {
	synced_line=$(head -n 1 "$log" | tr -d '\0')
	echo "${synced_line:-0}"
}
# New files, and one that is overwritten in place, each synced before the next begins.
work() {
	number=$1
	while :; do
		number=$((number + 1))
		contents $number | dd of="/mnt/$number" bs=64k iflag=fullblock conv=fsync 2>/dev/null || return
		printf '%08d\n' $number | dd of=/mnt/counter conv=notrunc,fsync 2>/dev/null || return
		echo $number | dd of="$log" bs=512 conv=sync,notrunc,fsync 2>/dev/null || return
	done
}
# Something that is never synced, so that there is always something to lose.
noise() {
	while dd if=/dev/zero of=/mnt/noise bs=256k count=16 oflag=direct conv=notrunc 2>/dev/null; do :; done
}
has_synced() {
	[ "$(synced)" -ge "$1" ]
}
all_there() {
	all_last=$(synced)
	for number in $(seq 1 "$all_last"); do
		contents "$number" | cmp - "/mnt/$number" || return
	done
	[ "$(sed 's/^0*//' /mnt/counter)" -ge "$all_last" ]
}
# check_files DEVICE: the journal is replayed, everything is there, and the file system is sound.
check_files() {
	mount "$1" /mnt && all_there && umount /mnt && /usr/sbin/e2fsck -fn "$1"
}

plan 12
if [ "$BOOT" = 1 ]; then
	check "a disk is laid out" lay_out "$(disk disk)"
	check "the module attaches it" load disk="$(disk disk)"
	check "a partition is made" partition_now /dev/imgstream0 63
	check "a file system is made on it" /usr/sbin/mke2fs -q -t ext4 -b 4096 $part
	check "and mounted" mount $part /mnt
	noise &
	work 0 &
	eventually has_synced 40
	power_cut
fi
if [ "$BOOT" = 2 ]; then
	check "the disk is attached after a cut" attach $part
	check "all files that were synced are there" check_files $part
	mount $part /mnt
	noise &
	work "$(synced)" &
	eventually has_synced 80
	imgstreamctl commit --yes --max 4096
	eventually half_way
	power_cut
fi
check "the disk is attached after a cut of the commit" attach $part
check "all files are there" check_files $part
imgstreamctl commit --yes --now
eventually committed
check "the module goes" unload
check "the disk has its partition" blockdev --rereadpt "$(disk disk)"
check "and there all files are at home" check_files "$(disk disk)1"
finish
