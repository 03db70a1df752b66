#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A block that the repository itself cannot read: who asks for others, which were to come with it, gets them. The target
# runs inside of the virtual machine.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget dd
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# The mebibyte that is asked for as a whole, the block of it that is bad, and others of it.
first=3072 bad=3100 early=3080 late=3200 written=3150 two=3099

one_fetch() {
	[ "$(value inflight)" = 1 ]
}
# read_right BLOCK: what was read of it.
read_right() {
	cmp -n 4096 "/tmp/read$1" /tmp/image 0 $(($1 * 4096))
}
written_right() {
	dd if=/dev/imgstream0 of=/tmp/merged bs=4096 skip="$written" count=1 iflag=direct 2>/dev/null &&
		cmp -n 512 /tmp/merged /tmp/image 0 $((written * 4096)) && cmp -n 512 /tmp/merged /tmp/word 512 0 &&
		cmp -n 3072 /tmp/merged /tmp/image 1024 $((written * 4096 + 1024))
}

make_image
printf '%512s' word >/tmp/word

plan 8
serve /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
check "the module attaches the disk" load disk="$(disk disk)"
imgstreamctl fill off
eventually idle
stop_serving
eventually gone

# They all wait for one fetch.
dd if=/dev/imgstream0 of=/tmp/all bs=1M skip=$((first / 256)) count=1 iflag=direct 2>/dev/null &
all=$!
eventually one_fetch
into=/tmp/read$early be_reader $early &
before=$!
into=/tmp/read$late be_reader $late &
behind=$!
be_reader $bad &
itself=$!
be_reader $two 2 &
both=$!
be_part_writer /tmp/word $written 1 2>/dev/null &
writer=$!
eventually sleep_in_kernel $all $itself $both $before $behind $writer
equal "all of them wait for one fetch" 1 "$(value inflight)"
serve /tmp/image --bad $bad
how=
for pid in $all $itself $both $before $behind $writer; do
	wait "$pid" && how="$how good" || how="$how bad"
done
equal "who wants the bad block is refused, alone or with others; nobody else" " bad bad bad good good good" "$how"
check "a block before it is right" read_right $early
check "so is one behind it" read_right $late
check "and what is written to a part of one is merged with the image" written_right
check "the module goes" unload
stop_serving
finish
