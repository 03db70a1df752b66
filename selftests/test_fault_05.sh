#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A session connects with the first allocation on its way failing, with the second one and so on, until an attempt meets no
# fault: connecting, the negotiation, CHAP both ways, digests, and the look at the image. First a second session, beside which
# the first one is not lost, then the only one there is, with a read waiting for it. Either the network does without, or the
# attempt ends for want of memory, once, and says so; the next one succeeds. What leaks is found at the end of the boot.
# needs-kernel: debug
# needs-file: image 32M lun image
# needs-target: image digests
# needs-file: disk 192M
# needs-disk: disk
# needs-module: nf_tables nft_reject_inet
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl /usr/sbin/nft
# needs-own-boot: what it sets in debugfs is for the whole machine, and the tgt of a boot has one list of accounts
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/chap.sh
. /tests/chap.sh
# shellcheck source=selftests/guest/sessions.sh
. /tests/sessions.sh

# What a session does, as the compiler calls it.
round='_RNv[^ ]*6source6driver[^ ]*6Driver5round'
port=${PORTAL##*:}
memory="this computer has not enough memory"

# order ATTRIBUTE: the allocation behind the next $place ones fails, and no other. The attribute lets every one pass whose number
# is no multiple of `interval`. It counts from 0 when the machine starts, while `interval` is above 1 and `times` is left, so
# that the number of the last one that failed is what `interval` was then.
order() {
	number=$((counted + place + 1))
	fault_set "$1" interval $number && fault_set "$1" times 1 && fault_set "$1" probability 100
}

# met ATTRIBUTE: the fault that was ordered has come.
met() {
	[ "$(fault_get "$1" times)" = 0 ]
}
met_or_there() {
	met "$1" || "there_$who"
}

# away_WHO: that session has no connection, and the kernel's log is empty. come_WHO: it begins to connect, again_WHO: if it has
# not managed. there_WHO: it is there.
away_second() {
	reader=
	imgstreamctl sessions 1 && eventually logged_out && dmesg -c >/dev/null
}
logged_out() {
	dmesg | grep -q "has no connection: logged out"
}
come_second() {
	again_second
}
again_second() {
	imgstreamctl sessions 2 && imgstreamctl reconnect
}
there_second() {
	sessions_are "2 of 2"
}
# The read that finds the connection reset is answered by the next one.
away_first() {
	reset_all "$port"
	lost=$((lost + 1))
	be_reader $((first_read + lost)) &
	reader=$!
	eventually gone
}
come_first() {
	undo && dmesg -c >/dev/null && again_first
}
again_first() {
	imgstreamctl reconnect
}
there_first() {
	ready && idle
}

# be_there: it comes, at this attempt or a later one, without a pause.
be_there() {
	until "there_$who"; do
		"again_$who"
		sleep 0.1
	done
}

# judge: how the attempts ended that did not succeed, by the kernel's log: none, or one, for want of memory. No read fails.
judge() {
	ends=$(dmesg | sed -n 's/.*imgstream: session [0-9]* has no connection: //p')
	case $ends in
	"") ;;
	"$memory") ended=$((ended + 1)) ended_at="$ended_at $place" ;;
	*) unclean=$((unclean + 1)) && note "at place $place: $ends" ;;
	esac
	# Of all that there are, if that is none.
	# shellcheck disable=SC2086
	wait $reader || { unclean=$((unclean + 1)) && note "at place $place a read failed"; }
}

# connect_under ATTRIBUTE: the session comes with a fault at that place. Whether it was met.
connect_under() {
	"away_$who"
	order "$1"
	"come_$who"
	eventually met_or_there "$1"
	fault_set "$1" probability 0
	be_there
	judge
	met "$1" || return
	# With 1 it does not count.
	[ $number = 1 ] || counted=$number
}

# come_to_a_fault ATTRIBUTE: at which the last sweep did not arrive, so that it is known how far the attribute has counted.
come_to_a_fault() {
	fault_set "$1" probability 100
	until met "$1"; do
		"come_$who"
		be_there
		"away_$who"
	done
	fault_set "$1" probability 0
	counted=$number
}

# connect_sweep WHO ATTRIBUTE: at $ended places an attempt ended, at $ended_at.
connect_sweep() {
	who=$1 place=0 ended=0 ended_at="" unclean=0
	while connect_under "$2"; do
		place=$((place + 1))
		[ $((place % 20)) != 0 ] || note "at place $place"
	done
	note "$who, $2: $place places; connections ended at $ended of them:$ended_at"
}

# from_the_first: at the first place and at some more. That is an allocation of the module itself; the network's are behind it.
from_the_first() {
	case "$ended_at " in " 0 "*) [ "$ended" -ge 4 ] ;; *) false ;; esac
}
# clean: a connection ended for want of memory only, and one at most for each fault.
clean() {
	equal "and nothing else has, nor a second one" 0 $unclean
}

plan 18
check "faults can be ordered" faults_anywhere
check "a disk is laid out" lay_out "$(disk disk)"
target_chap $user $secret $target_user $target_secret
check "the module attaches it" attach_with $user $secret $target_user $target_secret
eventually ready
equal "with digests" "header+data" "$(value digests)"
check "faults are ordered for what sessions do" faults_in "$round"
check "and not for who notes what leaks" no_faults_in __alloc_object
# The second session is made once, which test_fault_04 goes through; from then on it only connects.
counted=0 lost=0 first_read=2000 who=second
imgstreamctl sessions 2
be_there
connect_sweep second failslab
check "beside another session want of memory has ended connections" from_the_first
clean
equal "the first one was never lost" 0 "$(value reconnects)"
away_second
come_to_a_fault failslab
connect_sweep first failslab
check "so it has where there is one" from_the_first
clean
equal "which was not lost but by the network" $lost "$(value reconnects)"
counted=0 who=second
be_there
connect_sweep second fail_page_alloc
clean
check "it is there in the end" there_second
check "what is read is right" right 1000
check "also what was read meanwhile" $guestdisk verify /dev/imgstream0 image --start $first_read --blocks $((lost + 1))
check "there is one again" away_second
check "the module goes" unload
finish
