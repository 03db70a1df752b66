#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Writes through a partition land where they belong, also those that are durable when they return: what a file system's
# journal writes. The head sends a copy of such a write to itself, and must not move it by the partition's start again.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

whole=/dev/imgstream0
part=/dev/imgstream0p1

plan 16
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
check "the fill is switched off" imgstreamctl fill off
check "a partition is made" partition_now $whole
check "it is there" [ -b $part ]
check "a durable write to absent blocks" $guestdisk stamp $part first --start 1000 --blocks 16 --durable
check "is where the partition has it" $guestdisk verify $part first --start 1000 --blocks 16
check "what follows by the partition's start is the image's" $guestdisk verify $whole image --start 1512 --blocks 16
check "a durable write to blocks that were written" $guestdisk stamp $part second --start 1000 --blocks 16 --durable
check "is there as well" $guestdisk verify $part second --start 1000 --blocks 16
check "blocks are read from the image" $guestdisk verify $whole image --start 2256 --blocks 16
check "a durable write to clean blocks" $guestdisk stamp $part third --start 2000 --blocks 16 --durable
check "is there, too" $guestdisk verify $part third --start 2000 --blocks 16
check "its neighbours are the image's" $guestdisk verify $whole image --start 2512 --blocks 16
check "the device goes" imgstreamctl detach
check "the module goes" unload
finish
