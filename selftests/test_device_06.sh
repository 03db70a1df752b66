#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Places of the disk that cannot be read or written: a clean block is read from the repository again, a fetched block
# that cannot be stored is answered and stays absent, a write says that it failed; the rest goes on.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

plan 11
check "a disk that can be weakened" weak_disk disk
layout=$(lay_out "$weak")
useful=$(place U "$layout")
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
# The fill may have had its first blocks by then: they are far from those that matter here.
eventually idle
absent=$(value blocks_absent)
check "blocks are fetched" $guestdisk verify /dev/imgstream0 image --start 5000 --blocks 100
weaken $((useful + 5050 * 4096)) $((100 * 4096))
check "clean blocks that cannot be read come from the repository" \
	$guestdisk verify /dev/imgstream0 image --start 5000 --blocks 100
check "blocks that cannot be stored are answered" $guestdisk verify /dev/imgstream0 image --start 5100 --blocks 50
equal "and stay absent" $((absent - 100)) "$(value blocks_absent)"
check "the failed writes are counted" [ "$(value errors_write)" -gt 0 ]
refuse "a guest's write there says that it failed" $guestdisk stamp /dev/imgstream0 mine --start 5120 --blocks 1
check "the blocks around are written" $guestdisk stamp /dev/imgstream0 mine --start 5150 --blocks 50
check "and read" $guestdisk verify /dev/imgstream0 mine --start 5150 --blocks 50
check "the module goes" unload
weak_disk_away
finish
