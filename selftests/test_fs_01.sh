#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# ext4, xfs and btrfs on partitions of the device: made, written with and without the page cache, synced, trimmed, checked
# and mounted again while blocks are fetched when they are read, while the fill runs, while a commit moves them, and on the
# plain disk that is left. Every file is what was written, and the kernel says nothing but the ordinary.
# needs-file: image 603987968 lun
# needs-target: image
# needs-file: disk 704M
# needs-disk: disk
# needs-module: ext4 xfs btrfs
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl sfdisk fstrim
# needs-program: mke2fs e2fsck mkfs.xfs xfs_repair mkfs.btrfs btrfs
# needs-own-boot: reads the kernel log
# needs-kernel: stock debug-long
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/kernel-log.sh
. /tests/kernel-log.sh

kinds="ext4 xfs btrfs"
# partition_of KIND DISK
partition_of() {
	case $1 in
	ext4) partition_name 1 "$2" ;;
	xfs) partition_name 2 "$2" ;;
	btrfs) partition_name 3 "$2" ;;
	esac
}
divide() {
	printf 'label: dos\nsize=96M,type=83\nsize=304M,type=83\nsize=160M,type=83\n' | sfdisk --quiet /dev/imgstream0
}
# make KIND: without a discard, so that what is below stays the image's.
make() {
	make_part=$(partition_of "$1" /dev/imgstream0)
	case $1 in
	ext4) /usr/sbin/mke2fs -q -t ext4 -E nodiscard "$make_part" ;;
	xfs) mkfs.xfs -q -K "$make_part" ;;
	btrfs) mkfs.btrfs -q -K "$make_part" ;;
	esac
}
# mount_kind KIND [DISK [OPTIONS]]
mount_kind() {
	mkdir -p "/mnt/$1"
	mount -t "$1" -o "${3:-rw}" "$(partition_of "$1" "${2:-/dev/imgstream0}")" "/mnt/$1"
}
# sound KIND [DISK]: the file system's own program finds nothing wrong.
sound() {
	sound_part=$(partition_of "$1" "${2:-/dev/imgstream0}")
	case $1 in
	ext4) /usr/sbin/e2fsck -fn "$sound_part" ;;
	xfs) xfs_repair -n "$sound_part" ;;
	btrfs) btrfs check --readonly "$sound_part" ;;
	esac
}
# contents WORDS BYTES
contents() {
	yes "$1" | head -c "$2"
}
# write_files KIND ROUND: small and large ones, each synced; one past the page cache; what an earlier round wrote is
# overwritten in place, cut short and removed. Free space is trimmed, of ext4 early, of the others in the last round, so that
# there is something to fetch until then.
write_files() {
	cd "/mnt/$1" && mkdir -p "$2" || return
	for number in $(seq 12); do
		contents "$1 $2 $number" $((number * number * 1500 + number)) |
			dd of="$2/$number" bs=64k iflag=fullblock conv=fsync 2>/dev/null || return
	done
	dd if=/bin/busybox of="$2/direct" bs=4096 count=200 oflag=direct 2>/dev/null || return
	if [ "$2" -gt 1 ]; then
		write_earlier=$(($2 - 1))
		contents "again" 5000 | dd of="$write_earlier"/10 bs=5000 seek=9 iflag=fullblock conv=notrunc,fsync 2>/dev/null &&
			truncate -s 70001 "$write_earlier"/11 && rm "$write_earlier"/9 "$write_earlier"/direct || return
	fi
	case $1$2 in ext42 | *3) /usr/sbin/fstrim "/mnt/$1" || return ;; esac
	find . -type f -exec sha256sum {} + >"/tmp/sums.$1"
	cd /
}
# intact KIND: all files are as they were written, by what the disk and the repository have.
intact() {
	echo 3 >/proc/sys/vm/drop_caches
	(cd "/mnt/$1" && sha256sum -c "/tmp/sums.$1" | grep -v ': OK$')
	[ $? = 1 ] && [ "$(wc -l <"/tmp/sums.$1")" -ge 13 ]
}
# again KIND [DISK [OPTIONS]]: unmounted, checked, mounted, read.
again() {
	umount "/mnt/$1" && sound "$@" && mount_kind "$@" && intact "$1"
}
# all TEXT COMMAND...: a result for each kind; COMMAND gets it as its first argument.
all() {
	all_text=$1 all_command=$2
	shift 2
	for kind in $kinds; do
		check "$kind $all_text" "$all_command" "$kind" "$@"
	done
}
# busy KIND: writes until the commit is through; then /tmp/busy.KIND says how often.
busy() {
	busy_number=0
	until committed; do
		busy_number=$((busy_number + 1))
		contents "busy $busy_number" $((busy_number % 50 * 3000 + 1)) |
			dd of="/mnt/$1/busy" bs=64k iflag=fullblock conv=fsync 2>/dev/null || return
	done
	echo $busy_number >"/tmp/busy.$1"
}
fetches() {
	[ "$(value fetched_bytes)" -gt $(($1 + 65536)) ]
}

plan 43
check "a disk is laid out" lay_out "$(disk disk)"
check "the module loads" load
dmesg -c >/dev/null
check "it attaches the disk" imgstreamctl attach "$(disk disk)"
imgstreamctl fill off
check "it has partitions" divide
all "is made" make
all "is mounted" mount_kind
all "is written while blocks come from the repository" write_files 1
all "is sound, and has all files" again
check "the repository is needed yet" [ "$(value blocks_absent)" -gt 1000 ]

imgstreamctl fill on --max 64
eventually fetches "$(value fetched_bytes)"
all "is written while the fill runs" write_files 2
all "is sound, and has all files" again
equal "and the fill runs still" no "$(value independent)"

imgstreamctl commit --yes --max 8192
eventually half_way
imgstreamctl commit --yes --max 1024
all "is written while a commit moves it" write_files 3
all "is sound, and has all files" again
equal "and the commit runs still" running "$(value commit)"
for kind in $kinds; do
	busy "$kind" &
done
imgstreamctl commit --yes --now
wait
check "all of them are written to its end" cat /tmp/busy.ext4 /tmp/busy.xfs /tmp/busy.btrfs
all "is sound then, and has all files" again
equal "no error was met" "0 0 0 none" \
	"$(value errors_read) $(value errors_write) $(value errors_journal) $(value last_error)"
umount /mnt/*
check "the module goes" unload
check "the kernel has nothing to say" quiet
echo "a test says something" >/dev/kmsg
refuse "which would be noticed" quiet
check "the plain disk has the partitions" blockdev --rereadpt "$(disk disk)"
for kind in $kinds; do
	mount_kind "$kind" "$(disk disk)" ro
done
all "is sound there, and has all files" again "$(disk disk)" ro
umount /mnt/*
finish
