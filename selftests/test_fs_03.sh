#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Programs that look at disks see on the device what they see on a virtio disk with the same contents, word for word; what
# fails there fails here in the same way; and the kernel says nothing about it that it does not say there. Where the two
# have to differ is said below, with the reason. The target runs inside of the virtual machine.
# needs-file: disk 192M
# needs-disk: disk
# needs-file: plain 33554432
# needs-disk: plain 512e
# needs-module: ext4
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget mke2fs mkswap fstrim smartctl
# needs-program: hdparm blkid lsblk wipefs blockdev blkdiscard fdisk sfdisk partx partprobe parted
# needs-own-boot: reads the kernel log
# needs-kernel: stock debug-long
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# Not what busybox has by the same name.
PATH=/usr/sbin:/usr/bin:$PATH
ours=/dev/imgstream0
plain=$(disk plain)
# anonymous: a text without names, the numbers that the kernel gives to disks as they come, and its times. It says "p1"
# itself for a partition of a disk whose name ends with a digit. What it finds out about the machine's clocks comes any time.
anonymous() {
	sed -e 's/imgstream0p\([0-9]\)/DISK\1/g' -e "s/imgstream0\|${plain#/dev/}/DISK/g" \
		-e 's/DISK-\?SEQ="\?[0-9]*/DISKSEQ/' -e 's/^PART_ENTRY_DISK=.*/PART_ENTRY_DISK/' \
		-e 's/^kernel: \[ *[0-9.]*\] /kernel: /' -e '/^kernel: .*\(clocksource\|TSC\|tsc:\|sched_clock\|hrtimer\)/d' \
		-e '/^kernel:/s/ p\([0-9]\)/ DISK\1/g' | tr -s ' ' | grep -vE "$except"
}
# outcomes DISK: all that the commands of /tmp/commands say, their exit status, and what the kernel says. In a command
# DISK is the disk, DISK1 and DISK2 are its partitions, and MOUNT is where the first of them is mounted.
outcomes() {
	dmesg -c >/dev/null
	sed -e "s|DISK\([0-9]\)|$(partition_name '\1' "$1")|g" -e "s|DISK|$1|g" -e "s|MOUNT|/mnt/${1#/dev/}|g" /tmp/commands |
		while read -r words; do
			echo "$words"
			# shellcheck disable=SC2086
			$words </dev/null 2>&1
			echo "exit status $?"
		done
	dmesg -c | sed 's/^/kernel: /'
}
# same: the outcomes of the commands that are read, one a line, are the same on both disks, but for lines that match $except.
except='^$'
same() {
	cat >/tmp/commands
	outcomes "$plain" | anonymous >/tmp/wanted
	outcomes "$ours" | anonymous >/tmp/got
	diff /tmp/wanted /tmp/got
}
# each: the same for commands that lack their last word, the disk or a partition.
each() {
	while read -r words; do
		echo "$words DISK
			$words DISK1
			$words DISK2"
	done | same
}
# queue_files DISK: what is said of its queue. One that takes bios has no requests, tags or scheduler of its own; the
# device's pieces of discards and zeroes are its own; and it makes single writes durable, which virtio cannot.
queue_files() {
	for file in "/sys/block/${1#/dev/}/queue"/*; do
		case ${file##*/} in
		async_depth | nr_requests | rq_affinity | scheduler | wbt_lat_usec) ;;
		discard_max_* | discard_granularity | write_zeroes_max_bytes | fua) ;;
		*) echo "${file##*/} $(cat "$file")" ;;
		esac
	done
}
same_queue() {
	queue_files "$plain" >/tmp/wanted
	queue_files "$ours" >/tmp/got
	[ "$(wc -l </tmp/wanted)" -gt 20 ] && diff /tmp/wanted /tmp/got
}
# A file is made and removed on both.
use_mounted() {
	for disk in "$plain" $ours; do
		mkdir -p "/mnt/${disk#/dev/}" &&
			mount -t ext4 "$(partition_name 1 "$disk")" "/mnt/${disk#/dev/}" &&
			dd if=/bin/busybox of="/mnt/${disk#/dev/}/file" conv=fsync 2>/dev/null &&
			rm "/mnt/${disk#/dev/}/file" && sync || return
	done
}

plan 26
check "a disk and an image are made" make_contents "$plain"
serve /tmp/image
check "the disk is laid out" lay_out_contents
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
eventually [ -b ${ours}p2 ]

check "blkid" each <<-EOF
	blkid -p -o export
	blkid -p -i -o export
	blkid -o export
EOF
columns=NAME,KNAME,PATH,SIZE,TYPE,FSTYPE,FSVER,LABEL,UUID,PTUUID,PTTYPE,PARTTYPE,PARTTYPENAME,PARTLABEL,PARTUUID,PARTFLAGS
columns=$columns,PARTN,START,RO,RM,HOTPLUG,ROTA,RAND,ALIGNMENT,MIN-IO,OPT-IO,PHY-SEC,LOG-SEC,RA,DISC-ALN,DISC-ZERO,DAX
columns=$columns,STATE,MODEL,SERIAL,REV,WWN,WSAME,ZONED,MODE,MOUNTPOINTS
check "lsblk" each <<-EOF
	lsblk --bytes --pairs --output $columns
EOF
check "the queue's limits" same_queue
check "wipefs" each <<-EOF
	wipefs --no-act
EOF
check "what blockdev reads" each <<-EOF
	blockdev --getro --getdiscardzeroes --getss --getpbsz --getiomin --getioopt --getalignoff --getmaxsect --getbsz
	blockdev --getsize --getsize64 --getsz --getra --getfra
	blockdev --getzonesz
EOF
check "what it sets" each <<-EOF
	blockdev --flushbufs --setra 512 --setfra 512 --getra --setbsz 1024 --setro --getro --setrw --getro
	blockdev --rereadpt
EOF
check "fdisk" each <<-EOF
	fdisk --list
EOF
check "sfdisk" each <<-EOF
	sfdisk --dump
	sfdisk --verify
	sfdisk --show-geometry
	sfdisk --list-free
	sfdisk --json
EOF
check "partx" each <<-EOF
	partx --show --raw
EOF
check "partprobe" each <<-EOF
	partprobe --summary
	partprobe
EOF
# It knows virtio by its device number.
except='^Model: |^/dev/DISK[0-9]?:'
check "parted" same <<-EOF
	parted --script DISK unit s print free
EOF
except='^$'
check "parted, checking alignment" same <<-EOF
	parted --script DISK align-check optimal 1
EOF
check "smartctl fails" each <<-EOF
	smartctl --all
	smartctl --all -d scsi
	smartctl --all -d sat
	smartctl --all -d nvme
	smartctl --test short
	smartctl --health
EOF
check "hdparm, which shows little" each <<-EOF
	hdparm -I
	hdparm -i
	hdparm -g
	hdparm -C
	hdparm -r
	hdparm -a -A -W -M -B
	hdparm -c -d -N -H
	hdparm -f
	hdparm -F
	hdparm -a 128
EOF
check "partitions go and come" same <<-EOF
	partx --delete --nr 2 DISK
	lsblk --list --sort NAME --output NAME,SIZE DISK
	partx --add --nr 2 DISK
	lsblk --list --sort NAME --output NAME,SIZE DISK
	sfdisk --part-label DISK 2 renamed
	sfdisk --dump DISK
	sfdisk --delete DISK 2
	lsblk --list --sort NAME --output NAME,SIZE DISK
	parted --script DISK mkpart third linux-swap 34816s 51199s
	lsblk --list --sort NAME --output NAME,SIZE DISK
	sfdisk --quiet --part-uuid DISK 2 00000000-1111-2222-3333-444444444444
	sfdisk --dump DISK
EOF
check "blkdiscard of what is not there, or not whole" each <<-EOF
	blkdiscard --offset 1G
	blkdiscard --offset 100
	blkdiscard --offset 512 --length 100
	blkdiscard --secure
EOF
check "of a part, with zeroes, by force" same <<-EOF
	blkdiscard --offset 14M --length 1M DISK1
	blkdiscard --zeroout --offset 3584 --length 66048 DISK2
	blkdiscard --force DISK2
EOF
# Nothing has to be said of that below.
imgstreamctl fill on
eventually independent
equal "the same is on both" "$(sha256sum <"$plain")" "$(sha256sum <$ours)"
check "both are mounted" use_mounted
check "what is in use is left alone" same <<-EOF
	blockdev --rereadpt DISK
	partprobe DISK
	blkdiscard DISK1
	blkdiscard DISK
	wipefs --all DISK1
	mke2fs -q DISK1
	partx --delete --nr 1 DISK
	sfdisk --delete DISK 1
	hdparm -z DISK
	fstrim --verbose MOUNT
EOF
umount /mnt/*
check "all of the disk is discarded" same <<-EOF
	blkdiscard DISK
EOF
equal "the same is on both then" "$(sha256sum <"$plain")" "$(sha256sum <$ours)"
check "the module goes" unload
stop_serving
finish
