#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# I/O that must not wait, and would have to, says so. That is no error of the disk, and is not counted as one.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup fio
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# now read|write: of block 5000, without waiting.
now() {
	fio --name=now --filename=/dev/imgstream0 --ioengine=pvsync2 --nowait=1 --thread --direct=1 --rw="$1" --bs=4k \
		--offset=$((5000 * 4096)) --size=4k
}

plan 11
weak_disk disk
check "a disk is laid out" lay_out "$weak"
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
eventually idle
check "a block is written" $guestdisk stamp /dev/imgstream0 mine --start 5000 --blocks 1
check "it is read without waiting" now read
dmsetup --noudevsync suspend --noflush weak
check "with the disk held, reading it says that it would have to wait" says "Resource temporarily unavailable" now read
check "writing it, too" says "Resource temporarily unavailable" now write
dmsetup --noudevsync resume weak
equal "no read has failed" 0 "$(value errors_read)"
equal "no write has failed" 0 "$(value errors_write)"
equal "nothing is wrong" none "$(value last_error)"
check "the block says what it said" $guestdisk verify /dev/imgstream0 mine --start 5000 --blocks 1
check "the module goes" unload
weak_disk_away
finish
