#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# ext4, xfs and btrfs of a source whose first blocks were relocated, read through the view of the source while the target
# is written and filled: sound, mounted as the documentation says, every file as it was.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: ext4 224M
# needs-disk: ext4
# needs-file: btrfs 224M
# needs-disk: btrfs
# needs-file: xfs 416M
# needs-disk: xfs
# needs-module: ext4 xfs btrfs loop
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl sfdisk losetup mount
# needs-program: mke2fs e2fsck mkfs.xfs xfs_repair mkfs.btrfs btrfs
# needs-own-boot: reads the kernel log
# needs-kernel: stock debug-long
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/kernel-log.sh
. /tests/kernel-log.sh

view=/dev/imgstream0-source
# Of the partition, which begins there.
start=$((2048 * 512))
# make KIND MIB: a partition with files in it.
make() {
	partition_now "$disk" "$2" || return
	case $1 in
	ext4) /usr/sbin/mke2fs -q -t ext4 "${disk}1" ;;
	xfs) mkfs.xfs -q "${disk}1" ;;
	btrfs) mkfs.btrfs -q "${disk}1" ;;
	esac && mount -t "$1" "${disk}1" /mnt && fill /mnt "$1" && umount /mnt && blockdev --flushbufs "$disk" &&
		table "$disk" >/tmp/table
}
# fill DIRECTORY WORD; each file in one piece, as a write takes milliseconds on the debug kernel, and head makes many.
fill() {
	for number in $(seq 20); do
		yes "$2 $number" | head -c $((number * number * 400 + number)) |
			dd of="$1/$number" bs=1M iflag=fullblock 2>/dev/null || return
	done
	(cd "$1" && sha256sum [0-9]* >/tmp/sums)
}
# table DISK: its partitions.
table() {
	sfdisk --dump "$1" | sed -n 's/.* : //p'
}
same_table() {
	table "$view" | diff /tmp/table - && [ -s /tmp/table ]
}
sound() {
	sound_part=$(/usr/sbin/losetup --find --show --read-only --offset "$start" "$view") || return
	case $1 in
	ext4) /usr/sbin/e2fsck -fn "$sound_part" ;;
	xfs) xfs_repair -n "$sound_part" ;;
	btrfs) btrfs check --readonly "$sound_part" ;;
	esac
	sound_result=$?
	/usr/sbin/losetup --detach "$sound_part" && [ "$sound_result" = 0 ]
}
mount_view() {
	/usr/bin/mount -t "$1" -o ro,loop,offset="$start" "$view" /mnt
}
# intact: all files are there, as they were.
intact() {
	echo 3 >/proc/sys/vm/drop_caches
	[ "$(cd /mnt && sha256sum -c /tmp/sums | grep -c ': OK$')" = 20 ]
}
go_on() {
	umount /mnt && imgstreamctl source-view off && imgstreamctl detach
}

plan 31
load
for kind in ext4 btrfs xfs; do
	disk=$(disk $kind) mebibytes=112
	[ $kind != xfs ] || mebibytes=304
	check "a source with $kind is made" make $kind $mebibytes
	check "its computer is moved" lay_out "$disk" --boot-blocks 2000 --as-is
	dmesg -c >/dev/null
	check "the view is opened" sh -c "imgstreamctl attach $disk && imgstreamctl source-view on"
	check "it has the source's partition table" same_table
	check "$kind in it is sound" sound $kind
	check "it is mounted" mount_view $kind
	check "and has all files" intact
	check "the target is written where the source was" $guestdisk stamp /dev/imgstream0 mine --start 100 --blocks 1000
	imgstreamctl fill on
	eventually independent
	check "nothing of that is seen in the source" intact
	check "the kernel has nothing to say" quiet
	go_on
done
check "the module goes" unload
finish
