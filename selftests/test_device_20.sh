#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A SCSI disk that says it can write zeroes, and discard, and refuses when it is asked to: zeroes are written all the same,
# a discard is taken for the hint that it is, and none of it is an error of the disk.
# needs-kernel: stock
# needs-file: image 33562624 lun
# needs-target: image
# needs-module: sd_mod scsi_debug
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl fallocate blkdiscard sfdisk
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

whole=/dev/imgstream0
# It has been loaded as it is by itself: with a disk of 8 MiB. Discards are WRITE SAME with a flag, zeroes without.
scsi_disk() {
	rmmod scsi_debug && insmod /modules/scsi_debug.ko dev_size_mb=192 lbpws=1 lbprz=0 && eventually scsi_device
}
# Its device, once that is there.
scsi_device() {
	set -- /sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block/*
	[ -b "/dev/${1##*/}" ] && echo "/dev/${1##*/}"
}
limit() {
	cat "/sys/block/${disk#/dev/}/queue/$1"
}
# zeroes FIRST_BLOCK BLOCKS HOW: at once, so that all of it is one request.
zeroes() {
	/usr/bin/fallocate "$3" -o $(($1 * 4096)) -l $(($2 * 4096)) "$whole"
}

plan 21
check "a SCSI disk" scsi_disk
disk=$(scsi_device)
check "64 blocks of it are home" lay_out "$disk" --boot-blocks 64
check "the module attaches it" load disk="$disk"
imgstreamctl fill off
# SCSI reads the table for that, and must not go on believing what it read.
check "it has a geometry" sfdisk --show-geometry $whole
check "the table is written" $guestdisk stamp --durable $whole mine --start 0 --blocks 1
head -c 4096 "$disk" >/tmp/below
check "who reads the disk below reads what was written" $guestdisk verify /tmp/below mine --blocks 1
check "it can write zeroes" [ "$(limit write_zeroes_max_bytes)" -gt 0 ]
check "it can discard" [ "$(limit discard_max_bytes)" -gt 0 ]
# From now on it refuses more than one sector.
echo 1 >/sys/module/scsi_debug/parameters/write_same_length
check "zeroes that the disk refuses are written" zeroes 8 16 -z
equal "it says now that it cannot" 0 "$(limit write_zeroes_max_bytes)"
check "there are zeroes" $guestdisk verify $whole zero --start 8 --blocks 16
check "in front of them there is the image" $guestdisk verify $whole image --start 1 --blocks 7
check "and behind them" $guestdisk verify $whole image --start 24 --blocks 8
check "who wants no pages written gets zeroes as well" zeroes 32 8 -p
check "they are there" $guestdisk verify $whole zero --start 32 --blocks 8
check "zeroes from blocks at home to others are written" zeroes 56 16 -p
check "they are there, too" $guestdisk verify $whole zero --start 56 --blocks 16
check "a discard that the disk refuses is a hint" /usr/sbin/blkdiscard -f -o $((40 * 4096)) -l $((8 * 4096)) $whole
equal "no write has failed" 0 "$(value errors_write)"
equal "nothing is wrong" none "$(value last_error)"
check "the module goes" unload
rmmod scsi_debug
finish
