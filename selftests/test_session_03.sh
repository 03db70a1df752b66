#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Parallel sessions, and what goes wrong with one of them: one whose portal shows another image leaves those alone that have the
# right one; one that is not to be any more does not keep the read that has just ended its connection; and what one has lost that
# cannot come back is read over the other.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: veth sch_netem
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip /usr/sbin/tc
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh
# shellcheck source=selftests/guest/sessions.sh
. /tests/sessions.sh

stale=192.0.2.3:3260

# each_session_but_the_first FAULT: the options for it; the first connection is that of laying the disk out.
each_session_but_the_first() {
	connections_from 2 "$1"
}
# connections_from NUMBER FAULT
connections_from() {
	for number in $(seq "$1" 9); do
		echo "--fault=$number:$2"
	done
}
# one_read_each: slowly, so that each of two sessions has one read. both_are_read: they have ended, and well.
one_read_each() {
	worsen delay 400ms
	(into=/tmp/read2000 be_reader 2000) &
	first=$!
	eventually waiting
	(into=/tmp/read3000 be_reader 3000) &
	second=$!
}
both_are_read() {
	wait $first
	wait $second
	mend
	for block in 2000 3000; do
		check "both are read ($block)" cmp -n 4096 /tmp/read$block /tmp/image 0 $((block * 4096))
	done
}
lost_one() {
	[ "$(value reconnects)" -gt 0 ]
}

make_image
make_other_image

plan 20
check "there is a network" network
ip -n far addr add 192.0.2.3/24 dev far0
serve_at $stale /tmp/other
at_stale=$served
# shellcheck disable=SC2046
serve_far /tmp/image $(each_session_but_the_first 0:login-status=2,6)
check "a disk with two portals is laid out" \
	$guestdisk disk "$(disk disk)" --portal $far_portal --portal $stale --target "$own_target"
check "the module attaches it, with two sessions" load disk="$(disk disk)" sessions=2
imgstreamctl fill off
eventually sessions_begin "1 of 2: wrong image behind the portal"
check "one session has met another image, the other one reads" $guestdisk verify /dev/imgstream0 image --start 1000 --blocks 500
equal "over the connection that it had" "$far_portal 0" "$(value portal) $(value reconnects)"
check "the module goes" unload
stop_serving
served=$at_stale
stop_serving

# The first read of a connection is that of the identity check.
# shellcheck disable=SC2046
serve_far /tmp/image $(each_session_but_the_first 1:short=512)
check "a disk is laid out" lay_out_far "$(disk disk)"
check "the module attaches it, with two sessions" load disk="$(disk disk)" sessions=2
imgstreamctl fill off
eventually sessions_are "2 of 2"
one_read_each
eventually lost_one
check "there is to be one, while a read has ended the other's connection" imgstreamctl sessions 1
both_are_read
equal "the connection that they were read over is the first" "1 of 1, 1" "$(value sessions), $(value reconnects)"
check "the module goes" unload
stop_serving

# The other session's connection ends with its read, and so does every later login of it.
# shellcheck disable=SC2046
serve_far /tmp/image --fault=2:1:reset=100 $(connections_from 3 0:login-status=2,6)
check "a disk is laid out" lay_out_far "$(disk disk)"
check "the module attaches it, with two sessions" load disk="$(disk disk)" sessions=2
imgstreamctl fill off
eventually sessions_are "2 of 2"
one_read_each
both_are_read
equal "the second one over the connection that is left" "1 of 2 1" "$(value sessions | cut -d: -f1) $(value reconnects)"
check "the module goes" unload
stop_serving
check "the network goes" network_away
finish
