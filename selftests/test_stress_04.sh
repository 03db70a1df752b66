#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# While the repository is dead, and reads, writes and a commit wait for it, the kernel ends at once (sysrq-b), panics, is shut
# down and starts: each time what was flushed is there, nothing waits that needs no repository, and all goes on when it is back.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget fio /usr/sbin/mke2fs /usr/sbin/e2fsck
# needs-module: ext4
# needs-fault: Kernel panic
# needs-own-boot: boots four times
# needs-long: it ends the machine four times
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
# A block that is not here before it is read at the end.
absent=6900
# work_stuck: works on blocks that nobody else looks at, until the repository is dead.
work_stuck() {
	serve /tmp/image
	work_hard 16 8
	stop_serving
	eventually gone
}
# flushed WORD START: what is flushed in the middle of that, and has to be there afterwards.
flushed() {
	$guestdisk stamp /dev/imgstream0 "$1" --start "$2" --blocks 200 &&
		blkdiscard -o $((($2 + 200) * 4096)) -l $((50 * 4096)) /dev/imgstream0 &&
		sync /dev/imgstream0
}
# there WORD START [DEVICE]
there() {
	$guestdisk verify "${3:-/dev/imgstream0}" "$1" --start "$2" --blocks 200 &&
		$guestdisk verify "${3:-/dev/imgstream0}" zero --start $(($2 + 200)) --blocks 50
}
# A file system in a partition at the end. What is not written before it is made is zeroed then.
fs_made() {
	write_mbr /dev/imgstream0 $((7168 * 8)) 8192 &&
		blockdev --rereadpt /dev/imgstream0 &&
		blkdiscard /dev/imgstream0p1 &&
		/usr/sbin/mke2fs -q -t ext4 -E nodiscard /dev/imgstream0p1
}
# Without the repository, so that it is known what is fetched afterwards.
attach() {
	load disk="$disk" && imgstreamctl fill off
}

plan 26
make_image
case $BOOT in
1)
	serve /tmp/image
	check "a disk is laid out" lay_out_own "$disk"
	add_settings "$disk"
	stop_serving
	check "the module attaches it" attach
	imgstreamctl fill on --max 64
	work_stuck
	check "with a dead repository blocks are written and flushed" flushed one 1000
	next_boot
	;;
2)
	check "after a stop at once the disk is attached" attach
	check "what was flushed is there" there one 1000
	work_stuck
	check "a commit begins" imgstreamctl commit --yes
	check "blocks are written and flushed while it waits" flushed two 6200
	# A panic.
	next_boot sysrq c
	;;
3)
	check "after a panic the disk is attached" attach
	check "the commit goes on by itself" [ "$(value state)" = committing ]
	imgstreamctl pause
	serve /tmp/image
	check "what was flushed is there" there one 1000
	check "and what was flushed last" there two 6200
	check "a file system is made" fs_made
	stop_serving
	eventually gone
	check "it is mounted without a repository" mount -t ext4 /dev/imgstream0p1 /mnt
	check "and written" sh -c "seq 100000 >/mnt/file"
	into=/tmp/read be_reader $absent &
	eventually waiting
	check "all is written back while somebody waits for the repository" sync
	check "the file system is unmounted" umount /mnt
	# The end of an orderly shutdown.
	next_boot reboot -f
	;;
esac
check "the disk is attached while the repository is away" attach
imgstreamctl pause
into=/tmp/read be_reader $absent &
reader=$!
eventually waiting
check "the file system checks clean" /usr/sbin/e2fsck -fn /dev/imgstream0p1
check "and is mounted" mount -t ext4 /dev/imgstream0p1 /mnt
equal "its file is there" "$(seq 100000 | md5sum)" "$(md5sum </mnt/file)"
umount /mnt
refuse "who wants what is not here waits" ended $reader
check "the state says why" sh -c "imgstreamctl status | grep 'disconnected: connection refused'"
serve /tmp/image
wait $reader
check "until the repository is there" cmp -n 4096 /tmp/read /tmp/image 0 $((absent * 4096))
imgstreamctl commit --yes --now
eventually committed
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
all_home() {
	$guestdisk verify "$disk" image --start 1 --blocks 999 &&
		there one 1000 "$disk" &&
		$guestdisk verify "$disk" image --start 1250 --blocks 2846 &&
		there two 6200 "$disk" &&
		$guestdisk verify "$disk" image --start 6450 --blocks 718
}
check "and all is home" all_home
stop_serving
finish
