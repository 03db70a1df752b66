#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Every Nth I/O of the disk fails. What the repository has as well is read all the same; a write says so if it may not be
# there, and what was acknowledged is there, now and after the next attach; fill and commit end when the disk is itself again.
# needs-kernel: debug
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# needs-own-boot: what it sets in debugfs is for the whole machine
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
whole=/dev/imgstream0
fail_io=/sys/block/${disk##*/}/make-it-fail
# From this block on writes are durable when they return.
durable=1100

# storm N [BYTES]: from now on, or when so much was read and written, every Nth I/O of the disk fails. calm: no more; one
# result: some did.
storm() {
	fault_set fail_make_request interval "$1" && fault_set fail_make_request times 1000000 &&
		fault_set fail_make_request space "${2:-0}" && fault_set fail_make_request probability 100 && echo 1 >"$fail_io"
}
calm() {
	echo 0 >"$fail_io"
	calm_met=$((1000000 - $(fault_get fail_make_request times)))
	note "$calm_met I/Os failed"
	check "I/Os failed" [ $calm_met -gt 0 ]
}

# One block each; the second one is durable when it is written.
write() {
	dd if=/tmp/mine of="$whole" bs=4096 skip="$1" seek="$1" count=1 conv=notrunc oflag=direct 2>/dev/null
}
write_durably() {
	$guestdisk stamp "$whole" mine --durable --start "$1" --blocks 1 >/dev/null 2>&1
}
# write_each HOW FIRST BLOCKS: one after the other; /tmp/acknowledged and /tmp/refused say which were written.
write_each() {
	write_at=$2 write_end=$(($2 + $3))
	while [ "$write_at" -lt "$write_end" ]; do
		if "$1" "$write_at"; then
			echo "$write_at" >>/tmp/acknowledged
		else
			echo "$write_at" >>/tmp/refused
		fi
		write_at=$((write_at + 1))
	done
}
# one_of BLOCK WORD...: it says one of these words.
one_of() {
	one_block=$1
	shift
	for one_word in "$@"; do
		! $guestdisk verify "$whole" "$one_word" --start "$one_block" --blocks 1 >/dev/null 2>&1 || return 0
	done
	note "block $one_block says none of: $*"
	return 1
}
# as_written: each acknowledged block has what was written; the others that, or what they had before.
as_written() {
	echo 3 >/proc/sys/vm/drop_caches
	while read -r as_block; do one_of "$as_block" mine || return; done </tmp/acknowledged
	while read -r as_block; do one_of "$as_block" mine image || return; done </tmp/refused
}
# flushed: all that was acknowledged is durable; else only that which was durable when it was.
flushed() {
	if dd if=/dev/null of=$whole count=0 conv=notrunc,fsync 2>/dev/null; then
		note "flushed"
		return
	fi
	note "not flushed"
	mv /tmp/acknowledged /tmp/volatile
	while read -r flushed_block; do
		if [ "$flushed_block" -ge $durable ]; then
			echo "$flushed_block" >>/tmp/acknowledged
		else
			echo "$flushed_block" >>/tmp/refused
		fi
	done </tmp/volatile
	touch /tmp/acknowledged
}
attach() {
	imgstreamctl attach "$disk" && imgstreamctl fill off
}
# tried: attached or refused, with one clear sentence; nothing else.
tried() {
	if attach_says=$(imgstreamctl attach "$disk" 2>&1); then
		echo attached >>/tmp/tried
	else
		note "$attach_says"
		echo refused >>/tmp/tried
		[ -n "$attach_says" ] && [ ! -e "$status" ]
	fi
}
given_back() {
	[ ! -e "$status" ] || imgstreamctl detach
}
# met: the module has seen some.
met() {
	[ $(($(value errors_write) + $(value errors_journal))) -gt 0 ]
}

plan 110
check "faults can be ordered" fault_set fail_make_request verbose 0
check "the module loads" load
truncate -s 8M /tmp/mine
$guestdisk stamp /tmp/mine mine --start 1000 --blocks 200 >/dev/null
for every in 2 3 5 13 40 97; do
	# A disk that was not detached as it should be has no clean blocks that are above suspicion.
	check "one in $every: a disk is laid out" lay_out "$disk"
	check "one in $every: it is attached" attach
	: >/tmp/acknowledged
	: >/tmp/refused
	storm $every
	write_each write 1000 60
	check "one in $every: absent blocks are read" $guestdisk verify $whole image --start 2000 --blocks 200
	check "one in $every: so are those that are here" $guestdisk verify $whole image --start 2000 --blocks 200
	write_each write_durably $durable 20
	calm
	note "$(wc -l </tmp/acknowledged) writes were acknowledged, $(wc -l </tmp/refused) refused"
	check "one in $every: all is as it was written" as_written
	cat /tmp/acknowledged >>/tmp/all_acknowledged
	cat /tmp/refused >>/tmp/all_refused
	flushed
	check "one in $every: it detaches" imgstreamctl detach
	check "one in $every: and is attached again" attach
	check "one in $every: all is as it was written, still" as_written
	check "one in $every: it detaches again" imgstreamctl detach
done
check "writes were acknowledged" grep -q '^10' /tmp/all_acknowledged
check "also durable ones" grep -q "^11" /tmp/all_acknowledged
check "writes were refused" grep -q "^10" /tmp/all_refused
check "also durable ones" grep -q "^11" /tmp/all_refused

check "it gets settings" add_settings "$disk"
for every in 2 3 4 5 7 11 17 29 47; do
	storm $every
	check "one in $every: the disk is attached or refused" tried
	calm
	check "one in $every: it detaches if need be" given_back
done
check "some attached" grep -q attached /tmp/tried
check "some did not" grep -q refused /tmp/tried

check "it is attached" attach
storm 3
imgstreamctl fill on
eventually met
calm
check "after a fill that met some it detaches" imgstreamctl detach
check "it is attached to be itself again" imgstreamctl attach "$disk"
eventually independent
pass "the fill ends"
check "all is as it was written" as_written
# Not what records that there is a commit.
storm 11 4194304
imgstreamctl commit --yes --now
eventually stopped
note "$(value commit)"
calm
check "a commit stopped, and the disk detaches" imgstreamctl detach
check "and is attached to be itself again" imgstreamctl attach "$disk"
eventually committed
pass "the commit ends"
check "all is as it was written, still" as_written
check "so is the rest" $guestdisk verify $whole image --start 6000 --blocks 2192
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
finish
