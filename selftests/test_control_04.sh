#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# While a disk is attached, by whatever way, its raw partitions are not there: they carry the target's file systems with
# most of their blocks missing. A refusal leaves them.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-file: other 64M
# needs-disk: other
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source-path=SCRIPTDIR/guest
. /tests/common.sh

guestdisk=imgstream-guestdisk
disk=$(disk disk)
other=$(disk other)
# partition DISK: one Linux partition of 63488 sectors from sector 2048 on.
partition() {
	printf '\000\000\000\000\203\000\000\000\000\010\000\000\000\370\000\000' |
		dd of="$1" bs=1 seek=446 conv=notrunc &&
		dd if=/dev/zero of="$1" bs=1 seek=462 count=48 conv=notrunc &&
		printf '\125\252' | dd of="$1" bs=1 seek=510 conv=notrunc,fsync &&
		blockdev --rereadpt "$1"
}

plan 17
check "a disk is laid out" $guestdisk disk "$disk" --portal "$PORTAL" --target "$(target_name image)"
check "it has a partition" partition "$disk"
check "which is there" [ -b "${disk}1" ]
check "so has another disk" partition "$other"
refuse "which is refused" load disk="$other"
check "and keeps it" [ -b "${other}1" ]

exec 7<"${disk}1"
refuse "a disk of which a partition is open is refused" load disk="$disk"
check "and keeps it, too" [ -b "${disk}1" ]
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
finish
