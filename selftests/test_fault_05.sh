#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A session is made with the first allocation of it failing, with the second one and so on, until an attempt meets no fault:
# connecting, the negotiation, CHAP both ways, digests, and the look at the image. It is there after another attempt each
# time, and the session beside it is not lost. What leaks is found at the end of the boot.
# needs-kernel: debug
# needs-file: image 32M lun image
# needs-target: image digests
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# needs-own-boot: what it sets in debugfs is for the whole machine, and the tgt of a boot has one list of accounts
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/chap.sh
. /tests/chap.sh
# shellcheck source=selftests/guest/sessions.sh
. /tests/sessions.sh

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
	met "$1" || sessions_are "2 of 2"
}

# second_there: there is a second session, at this attempt or a later one. second_away: it has logged out.
second_there() {
	until sessions_are "2 of 2"; do
		imgstreamctl sessions 2 && imgstreamctl reconnect
		sleep 0.1
	done
}
second_away() {
	imgstreamctl sessions 1 && eventually one_is_left "${PORTAL##*:}"
}

# connect_under ATTRIBUTE: the second session comes with a fault at that place. Whether it was met.
connect_under() {
	order "$1"
	imgstreamctl sessions 2 && imgstreamctl reconnect
	eventually met_or_there "$1"
	fault_set "$1" probability 0
	second_there
	second_away
	met "$1" || return
	# With 1 it does not count.
	[ $number = 1 ] || counted=$number
}

# connect_sweep ATTRIBUTE: $places is how many places were tried.
connect_sweep() {
	counted=0 place=0
	while connect_under "$1"; do
		place=$((place + 1))
		[ $((place % 20)) != 0 ] || note "at place $place"
	done
	places=$place
	note "$1: $places places"
}

plan 11
check "faults can be ordered" faults_anywhere
check "a disk is laid out" lay_out "$(disk disk)"
target_chap $user $secret $target_user $target_secret
check "the module attaches it" attach_with $user $secret $target_user $target_secret
eventually ready
equal "with digests" "header+data" "$(value digests)"
check "faults are ordered for the module alone" faults_in_module
# The second session is made once; from then on it only connects.
imgstreamctl sessions 2
second_there
second_away
connect_sweep failslab
check "a session finds no object in many places" [ $places -gt 10 ]
connect_sweep fail_page_alloc
check "and is there in the end" second_there
equal "the first one was never lost" 0 "$(value reconnects)"
check "what is read is right" right 1000
check "there is one again" second_away
check "the module goes" unload
finish
