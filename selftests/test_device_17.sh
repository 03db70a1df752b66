#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A durable write to a part of a block that is here, and is not any more when the write gets on: it was held up by a batch
# of a commit, behind a discard. It is looked at again and merged with zeroes.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget dmsetup dd
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

block=2000
# By a second way to the same blocks: who discards a block by one way keeps those away who write by the same one.
discard() {
	exec blkdiscard -o $(($1 * 4096 - 2048 * 512)) -l 4096 /dev/imgstream0p1
}
contents() {
	dd if=/dev/imgstream0 bs=4096 skip=$block count=1 iflag=direct 2>/dev/null
}

make_image
printf '%512s' word >/tmp/word
{
	dd if=/dev/zero bs=512 count=1
	cat /tmp/word
	dd if=/dev/zero bs=512 count=6
} 2>/dev/null >/tmp/expected

plan 10
serve /tmp/image
check "a disk that can be weakened" weak_disk disk
check "it is laid out" lay_out_own "$weak"
check "it has a partition" partition "$weak"
weaken $((3000 * 4096)) 4096
check "the module attaches it" load disk="$weak"
imgstreamctl fill on --min 500000
eventually independent
eventually [ -b /dev/imgstream0p1 ]
check "the block is written" $guestdisk stamp /dev/imgstream0 mine --start $block --blocks 1
imgstreamctl commit --yes --now
eventually stopped
pass "a place that cannot be written stops a commit"
dmsetup --noudevsync suspend --noflush weak
# It may wait for the disk as well, behind the journal.
imgstreamctl resume &
resumer=$!
eventually commit_held_up
discard $block &
discarder=$!
eventually sleep_in_kernel $discarder
be_part_writer /tmp/word $block 1 ,dsync 2>/tmp/said &
writer=$!
eventually sleep_in_kernel $writer
dmsetup --noudevsync resume weak
wait $resumer
wait $discarder
equal "the discard gets on" 0 $?
wait $writer
equal "and the write behind it" 0 $?
contents >/tmp/found
check "it is merged with zeroes" cmp /tmp/found /tmp/expected
eventually stopped
check "the module goes" unload
weak_disk_away
stop_serving
finish
