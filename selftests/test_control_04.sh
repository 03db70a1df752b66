#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# While a disk is attached, by whatever way, its raw partitions are not there: they carry the target's file systems with
# most of their blocks missing. A refusal leaves them, and writes nothing; after a failure they are there again.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-file: other 64M
# needs-disk: other
# needs-module: null_blk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
other=$(disk other)
# A disk in memory, of which sectors can be made to fail, and which has partitions.
faulty=/dev/faulty
faults=/sys/kernel/config/nullb/faulty
make_faulty() {
	mount -t configfs config /sys/kernel/config && mkdir "$faults" &&
		echo 192 >"$faults/size" && echo 1 >"$faults/memory_backed" && echo 1 >"$faults/power"
}
contents() {
	dd if="$1" bs=1M iflag=direct 2>/dev/null | md5sum
}

plan 23
check "a disk is laid out" lay_out "$disk"
check "it has a partition" partition_now "$disk"
check "which is there" [ -b "${disk}1" ]
check "so has another disk" partition_now "$other"
refuse "which is refused" load disk="$other"
check "and keeps it" [ -b "${other}1" ]

exec 7<"${disk}1"
before=$(contents "$disk")
refuse "a disk of which a partition is open is refused" load disk="$disk"
check "and keeps it, too" [ -b "${disk}1" ]
equal "nothing was written" "$before" "$(contents "$disk")"
exec 7<&-
check "the module attaches it" load disk="$disk"
refuse "then the raw partition is gone" [ -e "${disk}1" ]
refuse "and nobody gets it back" blockdev --rereadpt "$disk"
check "the device has it" [ -b /dev/imgstream0p1 ]
check "the module goes" unload
check "and the table can be read again" blockdev --rereadpt "$disk"
check "the partition is there" [ -b "${disk}1" ]
load
# By the ioctl: without udev imgstreamctl does the same before.
imgstreamctl attach "$disk" >/dev/null 2>&1
refuse "attached by imgstreamctl it is gone as well" [ -e "${disk}1" ]
check "the module goes again" unload

check "a disk that can fail" make_faulty
layout=$(lay_out $faulty)
check "it has a partition" partition_now $faulty
first=$(($(place C "$layout") / 512))
check "its first superblock can be neither read nor written" sh -c "echo +$first-$((first + 7)) >$faults/badblocks"
refuse "it is refused when it is to be written" load disk=$faulty
check "and has its partition again" [ -b ${faulty}1 ]
umount /sys/kernel/config
finish
