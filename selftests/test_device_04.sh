#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A dead network holds up what needs it, and nothing else; and it goes on by itself.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

down() {
	[ "$(value connection)" != ready ]
}

plan 13
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
check "some blocks are fetched" $guestdisk verify /dev/imgstream0 image --start 100 --blocks 200
target_stop
eventually down
# More readers than the stream queue has tags.
for start in $(seq 1000 8 2600); do
	dd if=/dev/imgstream0 of=/dev/null bs=4096 skip="$start" count=1 iflag=direct 2>/dev/null &
done
eventually waiting
check "blocks that are here are read" $guestdisk verify /dev/imgstream0 image --start 100 --blocks 200
check "they are overwritten and flushed" $guestdisk stamp /dev/imgstream0 mine --start 200 --blocks 50
check "whole absent blocks are written" $guestdisk stamp /dev/imgstream0 mine --start 5000 --blocks 300
check "and read" $guestdisk verify /dev/imgstream0 mine --start 5000 --blocks 300
check "blocks are discarded" blkdiscard -o $((6000 * 4096)) -l $((50 * 4096)) /dev/imgstream0
check "and read as zeroes" $guestdisk verify /dev/imgstream0 zero --start 6000 --blocks 50
refuse "the module does not go while somebody waits" rmmod imgstream
target_start
wait
pass "those who waited have their blocks"
check "they are the image's" $guestdisk verify /dev/imgstream0 image --start 1000 --blocks 1700
target_stop
eventually down
check "the module goes with a dead network" unload
target_start
finish
