#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The background fill gets all that the repository can read, also while the guest reads a block that it cannot read again
# and again; what is missing is said, and comes when the repository can read it. The target runs inside of the virtual
# machine.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

stuck_at() {
	[ "$(value fill_stuck)" = "$(unreadable_there "$1")" ]
}
# A guest that does not give up.
hammer() {
	while [ -e /tmp/hammer ]; do
		dd if=/dev/imgstream0 of=/dev/null bs=4096 skip=3000 count=1 iflag=direct 2>/dev/null
	done
}

make_image

plan 13
serve /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
stop_serving

# More in a row than is asked for at a time.
serve /tmp/image --bad 3000 --bad 5000+300
check "the module attaches the disk" load disk="$(disk disk)"
equal "nothing is known to be missing" none "$(value fill_stuck)"
touch /tmp/hammer
hammer &
hammering=$!
imgstreamctl fill on --min 500000
eventually stuck_at 3000
pass "the fill gets to its end, and says what is missing"
equal "all else is here" 301 "$(value blocks_absent)"
equal "the repository is needed yet" no "$(value independent)"
check "people are told" sh -c "imgstreamctl status | grep '^missing *$(unreadable_there 3000)'"
rm /tmp/hammer
wait $hammering
check "what is missing can be written" $guestdisk stamp /dev/imgstream0 mine --start 3000 --blocks 1
eventually stuck_at 5000
pass "then it is not missed any more"
stop_serving
eventually gone
check "what is here needs no repository" $guestdisk verify /dev/imgstream0 image --start 3001 --blocks 1999
serve /tmp/image
eventually independent
pass "the image mended, the rest comes by itself"
equal "nothing is missing" none "$(value fill_stuck)"
stop_serving
check "all is right" sh -c "
	$guestdisk verify /dev/imgstream0 image --blocks 3000 &&
	$guestdisk verify /dev/imgstream0 mine --start 3000 --blocks 1 &&
	$guestdisk verify /dev/imgstream0 image --start 3001 --blocks 5191"
unload
finish
