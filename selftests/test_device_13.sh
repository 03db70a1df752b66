#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A dead network fills the stream queue, and nothing else waits for it: with all its tags taken by reads that wait, and one
# more read on its way there from a place of the disk that cannot be read, what is here is written durably, and read.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup
# needs-own-boot: stops the target
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

tags=128
full() {
	under_way "$tags"
}

in_flight() {
	awk '{ print $9 }' /sys/block/imgstream0/stat
}

plan 10
weak_disk disk
layout=$(lay_out "$weak")
useful=$(place U "$layout")
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
eventually idle
check "blocks are fetched" $guestdisk verify /dev/imgstream0 image --start 5000 --blocks 100
target_stop
eventually gone
readers=
for n in $(seq $((tags + 10))); do
	# Not side by side: each is a request of its own.
	be_reader $((5200 + 2 * n)) &
	readers="$readers $!"
done
eventually full
check "what waits is counted as under way" [ "$(in_flight)" -ge "$tags" ]
weaken $((useful + 5050 * 4096)) 4096
be_reader 5050 &
readers="$readers $!"
# Something that the reads before have to overtake: it comes behind them if they are held up.
check "a new block is written durably" $guestdisk stamp --durable /dev/imgstream0 mine --start 5100 --blocks 10
check "one that was fetched as well" $guestdisk stamp --durable /dev/imgstream0 mine --start 5060 --blocks 10
check "they are read" $guestdisk verify /dev/imgstream0 mine --start 5060 --blocks 10
check "and what was fetched is" $guestdisk verify /dev/imgstream0 image --start 5000 --blocks 50
target_start
for reader in $readers; do
	wait "$reader" || echo "$reader" >>/tmp/failed
done
check "with the network back all readers go on" [ ! -e /tmp/failed ]
equal "and nothing is under way" 0 "$(in_flight)"
check "the module goes" unload
weak_disk_away
finish
