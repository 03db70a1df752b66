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
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
other=$(disk other)

plan 17
check "a disk is laid out" lay_out "$disk"
check "it has a partition" partition_now "$disk"
check "which is there" [ -b "${disk}1" ]
check "so has another disk" partition_now "$other"
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
