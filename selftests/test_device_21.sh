#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Writes to parts of absent blocks that wait for a dead network do not hold anything else up on its way to the stream queue:
# the block layer does not hold them back because they take so long. As many as the queue has tags for may be under way.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# needs-own-boot: stops the target
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# More than the block layer would let through at a time. They are far from each other, so that each is a fetch.
writes=60
# By the page cache, as a file system writes: with blocks of 512 bytes, as this partition ends with half a block.
write_parts() {
	for n in $(seq "$writes"); do
		printf 'part %s' "$n" | dd of=/dev/imgstream0p1 bs=512 seek=$(((2000 + 20 * n) * 8)) conv=notrunc,sync || return
	done 2>/dev/null
}
parts_are_there() {
	for n in $(seq "$writes"); do
		# Without the noughts that end it.
		found=$(dd if=/dev/imgstream0 bs=512 skip=$(((2000 + 20 * n) * 8 + 2048)) count=1 2>/dev/null | tr -d '\0')
		[ "$found" = "part $n" ] || return
	done
}
add_partition() {
	write_mbr "$1" 2048 $((30 * 2048 + 1)) && blockdev --rereadpt "$1"
}

plan 9
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
check "a partition is made" add_partition /dev/imgstream0
eventually idle
target_stop
eventually gone
# Writes alone are not held back: no read has to wait for them.
be_reader 6000 &
first=$!
eventually under_way 1
# While somebody has it open the others need not write it back when they are through.
exec 9<>/dev/imgstream0p1
check "parts of $writes absent blocks are written" write_parts
# What `sync` does keeps others from opening the disk.
dd if=/dev/null of=/dev/imgstream0p1 conv=notrunc,fsync 2>/dev/null &
syncing=$!
eventually under_way $((1 + writes))
pass "all of them are under way"
be_reader 6100 &
second=$!
eventually under_way $((1 + writes + 1))
pass "and a read behind them"
target_start
for pid in $first $second $syncing; do
	wait "$pid" || echo "$pid" >>/tmp/failed
done
check "with the network back all go on" [ ! -e /tmp/failed ]
exec 9>&-
check "the parts were written" parts_are_there
check "the module goes" unload
finish
