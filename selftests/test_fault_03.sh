#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The module is loaded, attaches a disk, and then there is no memory for its control file: the disk stays and can be read, as
# it may be the root file system.
# needs-kernel: debug
# needs-file: image 67117056 lun
# needs-target: image
# needs-file: disk 256M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk
# needs-own-boot: what it sets in debugfs is for the whole machine, and nothing detaches the disk in the end
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

plan 8
if [ "$BOOT" = 2 ]; then
	check "a machine that begins anew loads it" load
	unload
	finish
	exit
fi

check "faults can be ordered" faults_anywhere
check "for its control file alone" faults_in misc_register
check "a disk is laid out" lay_out "$(disk disk)"
want_of_memory "the module is loaded with it" insmod /modules/imgstream.ko disk="$(disk disk)"
refuse "it has no control file" [ -e /dev/imgstream-control ]
check "the disk is attached and read" $guestdisk verify /dev/imgstream0 image --start 1000 --blocks 10
check "the log says what is missing" sh -c "dmesg | grep 'imgstream: no /dev/imgstream-control: there was no memory'"
next_boot
