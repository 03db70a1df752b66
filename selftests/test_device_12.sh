#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A commit that needs blocks which the repository itself cannot read: what is round them is fetched, the first of them
# stops it and is named; a dead network does not. With the image mended `resume` ends it. The target runs inside of the
# virtual machine.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

stopped_at() {
	[ "$(value commit)" = "stopped: $(unreadable_there "$1")" ]
}
complained() {
	[ "$(complaints)" = "$1" ]
}
# Whether a write to a part of a block, which has to be merged with the rest of it, succeeds.
write_part() {
	dd if=/dev/zero of=/dev/imgstream0 bs=512 seek=$(($1 * 8)) count=1 oflag=direct conv=notrunc
}

make_image

plan 24
serve /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
stop_serving

serve /tmp/image --bad 3000 --bad 3100+40 --bad 7000
check "the module attaches the disk" load disk="$(disk disk)"
imgstreamctl fill off
# The fill may have had its first blocks by then: they are far from those that matter here.
eventually idle
absent=$(value blocks_absent)
refuse "a bad block is not read" $guestdisk verify /dev/imgstream0 image --start 3000 --blocks 1
refuse "nor merged with what is written to a part of it" write_part 3000
check "its neighbour is" $guestdisk verify /dev/imgstream0 image --start 3001 --blocks 1
before=$(complaints)
imgstreamctl commit --yes --now
eventually stopped_at 3000
pass "it stops the commit, which names it"
equal "nothing has moved" 0 "$(value copied)"
equal "the reason is the last error" "$(unreadable_there 3000)" "$(value last_error)"
check "who waits is told" says "$(unreadable_there 3000)" imgstreamctl commit --yes --wait
check "what is round it was fetched" [ "$absent" -gt $(($(value blocks_absent) + 3000)) ]
imgstreamctl resume
eventually complained $((before + 3))
eventually stopped_at 3000
pass "it is tried again when somebody says so"
# With a commit that is asked for once more.
equal "and said each time" $((before + 3)) "$(complaints)"
eventually idle
tried="$(value errors_read) $(value fetched_bytes)"
stop_serving
eventually gone
check "to the block before" $guestdisk verify /dev/imgstream0 image --start 2900 --blocks 100
check "from the block behind" $guestdisk verify /dev/imgstream0 image --start 3001 --blocks 99
check "and behind others that are bad" $guestdisk verify /dev/imgstream0 image --start 3140 --blocks 900
equal "it is not tried again" "$tried" "$(value errors_read) $(value fetched_bytes)"

imgstreamctl resume
eventually waiting
# Longer than the pause after which things are tried again.
sleep 6
equal "without a network it is not stopped" running "$(value commit)"
serve /tmp/image --bad 7000
eventually stopped_at 7000
equal "with the image mended there it goes on, to the next batch" $((4096 * 4096)) "$(value copied)"
check "a bad block can be written" $guestdisk stamp /dev/imgstream0 mine --start 7000 --blocks 1
check "then it goes on" imgstreamctl resume
eventually committed
pass "to its end"
check "the module goes" unload
check "all is the image" sh -c "
	$guestdisk verify $(disk disk) image --blocks 7000 &&
	$guestdisk verify $(disk disk) image --start 7001 --blocks 1191"
check "but for what was written" $guestdisk verify "$(disk disk)" mine --start 7000 --blocks 1
stop_serving
finish
