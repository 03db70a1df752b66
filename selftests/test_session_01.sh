#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Parallel sessions: each is one of its own; one that is killed costs no read; one that falls silent is not asked; their number
# changes at any time; and a target that allows one is read through that one.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: veth sch_netem nf_tables nft_reject_inet
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip /usr/sbin/tc
# needs-program: /usr/sbin/nft
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh
# shellcheck source=selftests/guest/sessions.sh
. /tests/sessions.sh

# part FIRST [BLOCKS]: so many blocks, which are not here yet, are right. part_later FIRST: begins that; $part is who does.
part() {
	$guestdisk verify /dev/imgstream0 image --start "$1" --blocks "${2:-500}"
}
part_later() {
	part "$1" >/tmp/part 2>&1 &
	part=$!
}
lost_more_than() {
	[ "$(value reconnects)" -gt "$1" ]
}
one_reads() {
	for reading in $readers; do
		ended "$reading" || return 0
	done
	return 1
}
all_read() {
	for reading in $readers; do
		! ended "$reading" || return
	done
}
# others_are_through: of three readers two have got what they asked for.
others_are_through() {
	through=0
	for reading in $readers; do
		! ended "$reading" || through=$((through + 1))
	done
	[ "$through" = 2 ]
}

# read_three FIRST: three blocks are asked for, which are not here yet, by $readers. have_come "TEXT" FIRST: they came, right.
read_three() {
	readers=
	for block in "$1" $(($1 + 1)) $(($1 + 2)); do
		(into=/tmp/read$block be_reader "$block") &
		readers="$readers $!"
	done
	eventually under_way 3
}
have_come() {
	# shellcheck disable=SC2086
	wait $readers
	for block in "$2" $(($2 + 1)) $(($2 + 2)); do
		check "$1 ($block)" cmp -n 4096 /tmp/read"$block" /tmp/image 0 $((block * 4096))
	done
}

# reads_on FIRST PIECES: becomes one that reads so many pieces of 64 blocks.
reads_on() {
	exec dd if=/dev/imgstream0 of=/dev/null bs=256k iflag=skip_bytes,direct skip=$(($1 * 4096)) count="$2" 2>/dev/null
}

make_image

plan 37
check "there is a network" network
watch_logins
serve_far /tmp/image
check "a disk is laid out" lay_out_far "$(disk disk)"
check "the module attaches it, with three sessions" load disk="$(disk disk)" sessions=3
imgstreamctl fill off
eventually sessions_are "3 of 3"
equal "there are three connections" 3 "$(connections | wc -l)"
check "each of them another session" each_has_logged_in
check "what is read is right" part 1000

# Many reads are under way when it happens.
worsen delay 40ms
part_later 2000
eventually waiting
reset_from "$(connections | tail -n 1)"
eventually lost_more_than 0
undo
wait $part
check "one that is killed costs no read" said_well $? /tmp/part
eventually sessions_are "3 of 3"
equal "it is there again, and was the only one" 1 "$(value reconnects)"
part_later 2500
eventually waiting
reset_from "$(connections | head -n 1)"
eventually lost_more_than 1
undo
wait $part
check "and so with another one" said_well $? /tmp/part
eventually sessions_are "3 of 3"
mend

# Nobody says that this one is dead: the session finds out in half a minute.
lost=$(value reconnects)
drop_from "$(connections | head -n 1)"
# Slowly, so that each session has one of them.
worsen delay 400ms
read_three 3000
mend
eventually others_are_through
sleep 1
check "while one is silent, others are read" part 3500 20
check "before it is given up" one_reads
equal "as nobody has done yet" "$lost" "$(value reconnects)"
undo
have_come "what it had to bring has come" 3000

eventually sessions_are "3 of 3"
lost=$(value reconnects)
ended=$(logouts)
worsen delay 5s
read_three 4000
check "there may be fewer, while each of them reads" imgstreamctl sessions 1
sleep 1
equal "no session leaves with its read" "$ended" "$(logouts)"
mend
have_come "which comes" 4000
eventually sessions_are "1 of 1"
eventually one_is_left
# A packet may have been sent twice.
check "the others have logged out" [ "$(logouts)" -ge $((ended + 2)) ]
check "there may be more again" imgstreamctl sessions 3
eventually sessions_are "3 of 3"

# More readers than sessions, so that there is always one that waits for a session, for the better part of a minute.
worsen rate 2mbit
readers=
for reader in 0 1 2 3 4 5 6 7; do
	reads_on $((5500 + 320 * reader)) 5 &
	readers="$readers $!"
done
eventually under_way 8
check "there may be fewer, while there is always something to read" imgstreamctl sessions 1
eventually one_is_left
check "the others take nothing new, and leave before anybody is through" all_read
# shellcheck disable=SC2086
kill $readers
mend
eventually sessions_are "1 of 1"
equal "and none was lost" "$lost" "$(value reconnects)"
check "what is read is right" part 4500
check "and there may be more again" imgstreamctl sessions 2
eventually sessions_are "2 of 2"
refuse "not as many as one likes" imgstreamctl sessions 9
check "what is read is right" part 5000
calm
check "the module goes, with several" unload
stop_serving

# Whoever comes second is told that there are too many. The first connection is that of laying the disk out.
many=
for number in 2 3 4 5; do
	many="$many --fault=$number:0:login-status=2,6"
done
# shellcheck disable=SC2086
serve_far /tmp/image $many
check "a disk is laid out" lay_out_far "$(disk disk)"
dmesg -c >/dev/null
check "the module attaches it, with three sessions" load disk="$(disk disk)" sessions=3
imgstreamctl fill off
eventually sessions_begin "1 of 3"
check "what is read is right, through one" part 1000
equal "which is said once" 1 "$(dmesg | grep -c 'of 3 with the repository is missing: login refused')"
equal "no connection was lost, and no read" "0 0 none" "$(value reconnects) $(value errors_read) $(value last_error)"
check "the module goes" unload
stop_serving
network_away
finish
