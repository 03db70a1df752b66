#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Writes of all kinds (sizes from one sector to 128 KiB, parts of blocks, past the page cache and through it, durable ones,
# discards) while the fill brings the same blocks, the target is killed again and again, and others read the state; the same
# while a commit moves them. What was written is read, at once, after the machine has stopped, and at home; all else is the
# image.
# needs-file: image 117448704 lun
# needs-target: image
# needs-file: disk 512M
# needs-disk: disk
# needs-file: expected 128M
# needs-disk: expected
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl fio dd
# needs-long: minutes without KVM
# needs-own-boot: boots twice
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
# More of everything where there is time.
rounds=${LONG:+4}
rounds=${rounds:-1}
expected=$(disk expected)
# Blocks: what a commit moves at once, and the image, which is seven of these. The work is in the five in the middle, each load
# with a piece of each; the one that meets the fill at their start, the one that meets the commit 2048 behind that.
batch=4096 image_blocks=28672
piece_blocks=1024 pieces="1 2 3 4 5"
filling_first=0 committing_first=2048

# piece NUMBER FIRST: of the load whose pieces begin so far behind the start of each batch, its first block.
piece() {
	echo $(($1 * batch + $2))
}

# jobs FIRST SEED: what fio does, on pieces of their own; the model has the first. A half of each, or a quarter, is gone through
# in random order, nothing twice.
jobs() {
	sizes="verify=crc32c
bssplit=512/40:1536/10:4k/20:4608/10:16k/10:64k/5:128k/5"
	blocks="bsrange=4k-64k
blockalign=4k"
	cat <<END
[global]
filename=/dev/imgstream0
ioengine=libaio
thread
size=2m
randseed=$2
loops=$rounds
verify_fatal=1
rw=randwrite
[direct]
direct=1
iodepth=32
offset=$(($(piece 2 "$1") * 4096))
$sizes
[durable]
direct=1
sync=dsync
iodepth=8
offset=$(($(piece 3 "$1") * 4096))
$sizes
[buffered]
ioengine=psync
fsync=16
offset=$(($(piece 4 "$1") * 4096))
$sizes
[discarded-and-written]
direct=1
iodepth=8
size=1m
offset=$(($(piece 5 "$1") * 4096))
$blocks
verify=crc32c
rw=randtrimwrite
[discarded]
direct=1
iodepth=8
offset=$((($(piece 5 "$1") + 512) * 4096))
$blocks
rw=randtrim
END
}

# Those who look, again and again.
look() {
	while [ -e /tmp/load ]; do
		{ imgstreamctl status --json && cat $status/*; } >/dev/null || echo "it could not" >>/tmp/look
	done
}

# work FIRST: again and again, as long as it is disturbed.
work() {
	work_round=0
	while [ -e /tmp/disturbed ]; do
		work_round=$((work_round + 1))
		jobs "$1" $(($1 + work_round)) >/tmp/jobs
		fio /tmp/jobs >/tmp/fio 2>&1 || return
	done
}

# filling, committing: what goes on meanwhile. Each goes on to a step, from 0 on, then hardly moves; whether it has come there;
# whether it has still to do.
filling() {
	case $1 in
	to) imgstreamctl fill on --max 4096 ;;
	there) [ "$(value blocks_absent)" -le $((image_blocks - $2 * 2048)) ] && imgstreamctl fill on --max 64 ;;
	goes_on) ! independent ;;
	esac
}
# A batch is moved whatever the rate is, which keeps the next one waiting for minutes; that is fetched.
committing() {
	case $1 in
	to) imgstreamctl commit --yes --max 64 ;;
	there) [ "$(value copied)" -ge $((($2 + 1) * batch * 4096)) ] ;;
	goes_on) [ "$(value commit)" = running ] ;;
	esac
}

# fetched_more BYTES
fetched_more() {
	[ "$(value fetched_bytes)" -ge "$1" ]
}

# disturb WHAT STEP: while fio works, that goes a step on, and the target is killed in the middle of it, and comes back. This is
# said, as a computer that has other work takes many minutes for a load.
disturb() {
	eventually ready
	"$1" to "$2" >/dev/null
	eventually fetched_more $(($(value fetched_bytes) + 131072))
	target_stop
	eventually gone
	target_start
	eventually ready
	eventually "$1" there "$2" >/dev/null
	note "$1: step $2"
}

# load_on WHAT FIRST: the work, meanwhile; what it leaves goes to $expected.
load_on() {
	touch /tmp/load /tmp/disturbed
	rm -f /tmp/look
	look &
	looking=$!
	work "$2" &
	working=$!
	$guestdisk exercise /dev/imgstream0 --seed $(($2 + 1)) --first "$(piece 1 "$2")" \
		--end $(($(piece 1 "$2") + piece_blocks)) --operations $((150 * rounds)) --expected "$expected" \
		>/tmp/exercise 2>&1 &
	exercise=$!
	lost=$(value reconnects)
	# Not more often: connections that are lost again and again are made more and more slowly.
	for step in 1 2 3; do
		disturb "$1" $step
	done
	refuse "$1: all the while work has gone on" ended $working
	rm /tmp/disturbed
	eventually ended $working
	note "fio has ended"
	check "$1: it has still to do" "$1" goes_on
	equal "$1: the connection was lost and made anew" $((lost + 3)) "$(value reconnects)"
	eventually ended $exercise
	note "the model has ended"
	rm /tmp/load
	wait $working
	check "$1: fio reads what it wrote" said_well $? /tmp/fio
	wait $exercise
	check "$1: the model agrees" said_well $? /tmp/exercise
	wait $looking
	refuse "$1: the state could be read all the time" cat /tmp/look
	check "$1: what was discarded reads as zeroes" \
		$guestdisk verify /dev/imgstream0 zero --start $(($(piece 5 "$2") + 512)) --blocks 512
	check "$1: all of it is flushed" sync /dev/imgstream0
	for number in 2 3 4 5; do
		dd if=/dev/imgstream0 of="$expected" bs=4096 skip="$(piece $number "$2")" seek="$(piece $number "$2")" \
			count=$piece_blocks iflag=direct oflag=direct conv=notrunc 2>/dev/null
	done
}

# written DEVICE FIRST: a load is as it was left.
written() {
	for number in $pieces; do
		written_first=$(piece "$number" "$2")
		$guestdisk compare "$1" "$expected" --first "$written_first" --end $((written_first + piece_blocks)) || return
	done
}

# untouched DEVICE
untouched() {
	$guestdisk verify "$1" image --blocks "$batch" &&
		$guestdisk verify "$1" image --start $((6 * batch)) --blocks "$batch" || return
	for number in $pieces; do
		for untouched_first in $((number * batch + 1024)) $((number * batch + 3072)); do
			$guestdisk verify "$1" image --start "$untouched_first" --blocks 1024 || return
		done
	done
}

plan 29
if [ "$BOOT" = 1 ]; then
	check "a disk is laid out" lay_out "$disk"
	add_settings "$disk"
	check "the module attaches it" load disk="$disk"
	imgstreamctl fill on --max 64
	load_on filling $filling_first
	next_boot_now
fi
check "the disk is attached after an unclean stop" load disk="$disk"
# The commit is to fetch what it needs.
imgstreamctl fill off
check "what was written is there" written /dev/imgstream0 $filling_first
check "a commit begins" committing to 0
eventually committing there 0
load_on committing $committing_first
check "the commit goes on" imgstreamctl commit --yes --now
check "the first load is there yet" written /dev/imgstream0 $filling_first
eventually committed
equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
check "the first load is home" written "$disk" $filling_first
check "the second one" written "$disk" $committing_first
check "and all else, as the image" untouched "$disk"
finish
