#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What needs no network does not wait for a dead one, where all tags of the stream queue are taken, and all room there is for
# durable writes that wait for it: writes to parts of blocks of zeroes, durable or not; zeroes in blocks that are here, that
# are zeroes, and that are home on a disk that cannot write zeroes by itself.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup fallocate dd
# needs-own-boot: stops the target
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

whole=/dev/imgstream0
tags=128 room=64
# zeroes FIRST_SECTOR SECTORS [HOW]
zeroes() {
	/usr/bin/fallocate "${3:--z}" -o $(($1 * 512)) -l $(($2 * 512)) "$whole"
}
# padded SECTOR...: what a block of zeroes is with the word in these.
padded() {
	rm -f /tmp/expected
	truncate -s 4096 /tmp/expected
	for sector in "$@"; do
		dd if=/tmp/word of=/tmp/expected bs=512 seek="$sector" conv=notrunc 2>/dev/null
	done
	md5sum </tmp/expected
}
contents() {
	dd if=$whole bs=4096 skip="$1" count=1 iflag=direct 2>/dev/null | md5sum
}

plan 23
yes word | head -c 512 >/tmp/word
weak_disk disk
check "512 blocks of a disk are home" lay_out "$weak" --boot-blocks 512
# Nothing is there; a mapping with a place that fails does not write zeroes.
weaken $((150 << 20)) 4096
equal "the disk cannot write zeroes" 0 "$(cat /sys/block/dm-0/queue/write_zeroes_max_bytes)"
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
eventually idle
check "blocks are fetched" $guestdisk verify $whole image --start 5000 --blocks 10
check "others are made zeroes" zeroes $((5100 * 8)) $((10 * 8))
target_stop
eventually gone
pids=
for n in $(seq $((room + 6))); do
	be_part_writer /tmp/word $((6000 + 2 * n)) 1 ,dsync &
	pids="$pids $!"
done
eventually under_way "$room"
for n in $(seq $((tags + 10))); do
	be_reader $((7000 + 2 * n)) &
	pids="$pids $!"
done
eventually under_way "$tags"
check "a part of a block of zeroes is written" write_part /tmp/word 5100 1
check "and another part of it" write_part /tmp/word 5100 3
equal "it has both" "$(padded 1 3)" "$(contents 5100)"
check "a part of one is written durably" write_part /tmp/word 5101 7 ,dsync
equal "it has that" "$(padded 7)" "$(contents 5101)"
check "zeroes are written to a part of one" zeroes $((5102 * 8 + 2)) 3
check "there are zeroes in it, and behind it" $guestdisk verify $whole zero --start 5102 --blocks 8
check "zeroes are written to a part of a block that is here" zeroes $((5000 * 8)) 7
check "and to the rest of it" zeroes $((5000 * 8 + 7)) 1
check "there are zeroes" $guestdisk verify $whole zero --start 5000 --blocks 1
check "what is behind it is the image's" $guestdisk verify $whole image --start 5001 --blocks 9
check "zeroes are written to blocks that are home" zeroes $((300 * 8)) $((150 * 8)) -p
check "there are zeroes, too" $guestdisk verify $whole zero --start 300 --blocks 150
check "in front of them there is the image" $guestdisk verify $whole image --start 257 --blocks 43
check "and behind them" $guestdisk verify $whole image --start 450 --blocks 62
target_start
for pid in $pids; do
	wait "$pid" || echo "$pid" >>/tmp/failed
done
check "with the network back all others go on" [ ! -e /tmp/failed ]
equal "no write has failed" 0 "$(value errors_write)"
check "the module goes" unload
weak_disk_away
finish
