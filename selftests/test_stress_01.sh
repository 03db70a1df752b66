#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Writes of all kinds (sizes from one sector to 128 KiB, parts of blocks, past the page cache and through it, durable ones,
# discards) while the fill brings the same blocks, the target is killed again and again, and others read the state; the same
# while a commit runs. What was written is read, at once, after the machine has stopped, and at home; all else is the image.
# needs-file: disk 256M
# needs-disk: disk
# needs-file: expected 64M
# needs-disk: expected
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget fio dd
# needs-long: minutes without KVM
# needs-own-boot: boots twice
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
# More of everything where there is time.
rounds=${LONG:+4}
rounds=${rounds:-1}
expected=$(disk expected)
# Blocks: what is not written before the first load, two loads, what is not written behind the second.
first=1024 load_blocks=7168
second=$((first + load_blocks))
end=$((second + load_blocks)) image_blocks=16384

# jobs FIRST: what fio does, on ranges of their own. The first half of each is gone through in random order, nothing twice.
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
randseed=$1
loops=$rounds
verify_fatal=1
rw=randwrite
[direct]
direct=1
iodepth=32
offset=$((($1 + 2048) * 4096))
$sizes
[durable]
direct=1
sync=dsync
iodepth=8
offset=$((($1 + 3072) * 4096))
$sizes
[buffered]
ioengine=psync
fsync=16
offset=$((($1 + 4096) * 4096))
$sizes
[discarded-and-written]
direct=1
iodepth=8
offset=$((($1 + 5120) * 4096))
$blocks
verify=crc32c
rw=randtrimwrite
[discarded]
direct=1
iodepth=8
offset=$((($1 + 6144) * 4096))
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

# fetched_more BYTES
fetched_more() {
	[ "$(value fetched_bytes)" -ge "$1" ] || independent
}

ready_or_done() {
	ready || independent
}
gone_or_done() {
	gone || independent
}

# kill_target: while work goes on, the target ends in the middle of it, and comes back. That is said, as a computer that has
# other work takes many minutes for a load.
kill_target() {
	eventually ready_or_done
	eventually fetched_more $(($(value fetched_bytes) + 524288))
	stop_serving
	eventually gone_or_done
	serve /tmp/image
	note "the target is back"
}

work_has_ended() {
	ended $fio && ended $exercise
}

# load_on FIRST TEXT: the work, on blocks from FIRST on; what it leaves goes to $expected.
load_on() {
	jobs "$1" >/tmp/jobs
	touch /tmp/load
	rm -f /tmp/look
	look &
	looking=$!
	fio /tmp/jobs >/tmp/fio 2>&1 &
	fio=$!
	$guestdisk exercise /dev/imgstream0 --seed "$1" --first "$1" --end $(($1 + 2048)) \
		--operations $((150 * rounds)) --expected "$expected" >/tmp/exercise 2>&1 &
	exercise=$!
	# Not more often: connections that are lost again and again are made more and more slowly.
	kill_target
	kill_target
	for _ in 3 4; do
		work_has_ended || kill_target
	done
	eventually ended $fio
	note "fio has ended"
	eventually ended $exercise
	note "the model has ended"
	rm /tmp/load
	wait $fio
	check "$2: fio reads what it wrote" said_well $? /tmp/fio
	wait $exercise
	check "$2: the model agrees" said_well $? /tmp/exercise
	wait $looking
	refuse "$2: the state could be read all the time" cat /tmp/look
	check "$2: what was discarded reads as zeroes" \
		$guestdisk verify /dev/imgstream0 zero --start $(($1 + 6144)) --blocks 512
	check "$2: all of it is flushed" sync /dev/imgstream0
	dd if=/dev/imgstream0 of="$expected" bs=4096 skip=$(($1 + 2048)) seek=$(($1 + 2048)) count=$((load_blocks - 2048)) \
		iflag=direct oflag=direct conv=notrunc 2>/dev/null
}

# written DEVICE FIRST: a load is as it was left.
written() {
	$guestdisk compare "$1" "$expected" --first "$2" --end $(($2 + load_blocks))
}

# untouched DEVICE
untouched() {
	$guestdisk verify "$1" image --blocks "$first" &&
		$guestdisk verify "$1" image --start "$end" --blocks $((image_blocks - end))
}

truncate -s 67117056 /tmp/image
$guestdisk lun /tmp/image
serve /tmp/image

plan 23
if [ "$BOOT" = 1 ]; then
	check "a disk is laid out" lay_out_own "$disk"
	add_settings "$disk"
	check "the module attaches it" load disk="$disk"
	imgstreamctl fill on --max 2048
	load_on $first "filling"
	next_boot
fi
check "the disk is attached after an unclean stop" load disk="$disk"
check "what was written is there" written /dev/imgstream0 $first
check "a slow commit begins" imgstreamctl commit --yes --max 2048
load_on $second "committing"
check "the commit goes on" imgstreamctl commit --yes --now
check "the first load is there yet" written /dev/imgstream0 $first
eventually committed
equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
check "the first load is home" written "$disk" $first
check "the second one" written "$disk" $second
check "and all else, as the image" untouched "$disk"
stop_serving
finish
