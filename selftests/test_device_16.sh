#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Durable writes to parts of blocks that are not here wait for a dead network, and no more of them than their reserve has
# get to the stream queue: what local I/O needs when memory is short, and half of the tags, is not theirs. With the network
# back all of them end.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dd
# needs-own-boot: stops the target
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

reserve=64
writers=200
# Whether the second sector of a block is zero.
zeroes() {
	dd if=/dev/imgstream0 bs=512 skip=$(($1 * 8 + 1)) count=1 iflag=direct 2>/dev/null | cmp -n 512 - /dev/zero
}
# Blocks that lose their data while they are written in part.
race() {
	for n in $(seq 100); do
		blkdiscard -o $((7000 * 4096)) -l 4096 /dev/imgstream0 || return
	done &
	racer=$!
	for n in $(seq 100); do
		write_part /dev/zero 7000 1 ,dsync || return
	done
	wait "$racer"
}

plan 10
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
eventually idle
check "blocks are fetched" $guestdisk verify /dev/imgstream0 image --start 5000 --blocks 100
check "writes in part and discards get past each other" race
target_stop
eventually gone
pids=
for n in $(seq $writers); do
	be_part_writer /dev/zero $((5200 + 2 * n)) 1 ,dsync &
	pids="$pids $!"
done
# shellcheck disable=SC2086
eventually sleep_in_kernel $pids
# It comes behind them in the stream queue.
dd if=/dev/imgstream0 of=/dev/null bs=4096 skip=6000 count=1 iflag=direct 2>/dev/null &
reader=$!
eventually under_way $((reserve + 1))
equal "no more than their reserve has wait for the network" $((reserve + 1)) "$(value inflight)"
check "what is here is written durably" $guestdisk stamp --durable /dev/imgstream0 mine --start 5060 --blocks 10
check "a part of it as well" write_part /dev/zero 5070 1 ,dsync
target_start
for pid in $pids $reader; do
	wait "$pid" || echo "$pid" >>/tmp/failed
done
check "with the network back all of them end" [ ! -e /tmp/failed ]
check "and the last one has written" zeroes $((5200 + 2 * writers))
check "the module goes" unload
finish
