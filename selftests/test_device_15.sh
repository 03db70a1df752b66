#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Blocks that come and cannot be stored: the fill gets all round them, fetches them not again and again, and names the
# first of them; a commit takes them home without storing them, and stops only where home is bad, too. A block that neither
# the disk nor the repository can read stops it as well. With what is needed mended `resume` ends it.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget dmsetup
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

unstored() {
	echo "block $1 was fetched and cannot be stored, at byte $(slot "$1") of the disk"
}
unwritable() {
	echo "block $1 cannot be written to its place, byte $(($1 * 4096)) of the disk"
}
unreadable() {
	echo "block $1 cannot be read where it is, at byte $(slot "$1") of the disk"
}
stuck() {
	[ "$(value fill_stuck)" = "$1" ]
}
stopped_for() {
	[ "$(value commit)" = "stopped: $1" ]
}
# Each block once, some more often while the bad ones are looked for: few compared with what is fetched without a pause.
few_fetched() {
	[ "$(value fetched_bytes)" -lt $((2 * 8192 * 4096)) ]
}

make_image

plan 15
serve /tmp/image
check "a disk that can be weakened" weak_disk disk
layout=$(lay_out_own "$weak")
useful=$(place U "$layout")
weaken "$(slot 3000)" 4096 "$(slot 5000)" $((300 * 4096))
check "the module attaches it" load disk="$weak"
imgstreamctl fill on --min 500000
eventually stuck "$(unstored 3000)"
pass "the fill gets to its end, and says what cannot be stored"
equal "all else is here" 301 "$(value blocks_absent)"
check "it was not fetched again and again" few_fetched
check "it can be read" $guestdisk verify /dev/imgstream0 image --start 2990 --blocks 20
weaken $((3000 * 4096)) 4096 "$(slot 3000)" 4096 "$(slot 5000)" $((300 * 4096))
imgstreamctl commit --yes --now
eventually stopped_for "$(unwritable 3000)"
pass "a commit stops where neither slot nor home can be written"
equal "nothing has moved" 0 "$(value copied)"

# What is here and equals the image is fetched again where the disk cannot read it, unless the repository cannot either.
stop_serving
eventually gone
serve /tmp/image --bad 2000
weaken "$(slot 2000)" 4096 "$(slot 3000)" 4096 "$(slot 5000)" $((300 * 4096))
check "with that place good again the commit goes on" imgstreamctl resume
eventually stopped_for "$(unreadable 2000)"
pass "to a block that nobody can read"
equal "which is not home" 1 $(($(value copied) <= 2000 * 4096))
weaken "$(slot 3000)" 4096 "$(slot 5000)" $((300 * 4096))
check "with that mended it goes on" imgstreamctl resume
eventually committed
pass "to its end, although there are slots that cannot be written"
check "the module goes" unload
check "all is home" $guestdisk verify "$weak" image --blocks 8192
weak_disk_away
stop_serving
finish
