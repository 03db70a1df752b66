#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Blocks are written while they are being fetched: whole and in part, past the page cache and through it, durably, discarded,
# zeroed; each of these while a repository is silent, so that nothing can be in time, and then all at once, by those who know
# what they wrote last and by a file system that is trimmed, while the fill brings the same blocks from half a second away. The
# newest data always wins, zeroes stay zeroes, and nothing comes back: neither at once, nor after a power cut, nor at home.
# needs-file: disk 192M
# needs-disk: disk volatile
# needs-file: model 33562624
# needs-disk: model
# needs-module: veth sch_netem ext4
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget fio dd fstrim
# needs-program: /usr/bin/ip /usr/sbin/tc /usr/sbin/blkdiscard /usr/sbin/mke2fs /usr/sbin/e2fsck
# needs-own-boot: boots twice
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

disk=$(disk disk)
# What the device has to say, as far as it is known.
model=/tmp/model
# Blocks: the single races, far from what the fill has before it is told not to; the work of one each, 2 MiB apart, and of many;
# a file system, and what nobody touches.
races=3584 works="1024 1536 2048" crowd=2560 crowd_end=3072 fs_first=4096 fs_end=7168 image_blocks=8192
# Zeroes, and blocks that say who they are, for a file that is as long as the device.
zeroes=/dev/zero mine=/tmp/mine

# copy FROM BLOCK SECTOR SECTORS TO [OPTION...]: becomes a dd of so much, to the same place.
copy() {
	copy_from=$1 copy_first=$(($2 * 8 + $3)) copy_count=$4 copy_to=$5
	shift 5
	exec /usr/bin/dd if="$copy_from" of="$copy_to" bs=$((copy_count * 512)) count=1 iflag=skip_bytes oflag=seek_bytes \
		skip=$((copy_first * 512)) seek=$((copy_first * 512)) conv=notrunc status=none "$@"
}
# Ways to write: BLOCK SECTOR SECTORS.
direct() {
	copy "$mine" "$@" /dev/imgstream0 oflag=direct
}
durable() {
	copy "$mine" "$@" /dev/imgstream0 oflag=direct,dsync
}
buffered() {
	copy "$mine" "$@" /dev/imgstream0 conv=fsync
}
# It would look for signatures first, which may be absent.
discarded() {
	exec /usr/sbin/blkdiscard -q -f -o $(($1 * 4096 + $2 * 512)) -l $(($3 * 512)) /dev/imgstream0
}
zeroed() {
	exec /usr/sbin/blkdiscard -q -f -z -o $(($1 * 4096 + $2 * 512)) -l $(($3 * 512)) /dev/imgstream0
}
# remember WAY BLOCK SECTOR SECTORS: in the model.
remember() {
	remember_from=$mine
	case $1 in discarded | zeroed) remember_from=$zeroes ;; esac
	shift
	(copy "$remember_from" "$@" $model)
}
# be_reader_of_eight BLOCK: becomes one that reads so many at once, a multiple of them from the start.
be_reader_of_eight() {
	exec dd if=/dev/imgstream0 of=/dev/null bs=32768 skip=$(($1 / 8)) count=1 iflag=direct 2>/dev/null
}
# race WAY SECTOR SECTORS THEN: the next eight blocks are being fetched, and the repository is silent, when this is written from
# the third one on; it is not heard before the writer fares as THEN says: `ended`, or `sleep_in_kernel`, for want of the rest
# of a block.
race() {
	kill -STOP "$served"
	be_reader_of_eight $races &
	race_reader=$!
	eventually waiting
	"$1" $((races + 2)) "$2" "$3" &
	race_writer=$!
	eventually "$4" $race_writer
	refuse "$1 from sector $2 on, $3 sectors: what is fetched has not come by then" ended $race_reader
	kill -CONT "$served"
	wait $race_writer
	equal "$1 from sector $2 on, $3 sectors: it is written" 0 $?
	wait $race_reader
	remember "$1" $((races + 2)) "$2" "$3"
	eventually idle
	races=$((races + 8))
}
# dropped: blocks that were fetched and not kept, because the guest wrote them meanwhile.
dropped() {
	echo $((($(value fetched_bytes) - $(value stored_bytes)) / 4096))
}
# same DEVICE [FIRST END]: it is as the model has it.
same() {
	$guestdisk compare "$1" "$model" --first "${2:-0}" --end "${3:-$image_blocks}"
}
# work FIRST END [OPTION...]: random work, whose outcome goes into the model.
work() {
	work_first=$1 work_end=$2
	shift 2
	$guestdisk exercise /dev/imgstream0 --seed "$work_first" --first "$work_first" --end "$work_end" --expected $model "$@" \
		>"/tmp/work.$work_first" 2>&1 || touch /tmp/work_failed
}
work_well() {
	[ ! -e /tmp/work_failed ] || { cat /tmp/work.* && return 1; }
}
fs_made() {
	write_mbr /dev/imgstream0 $((fs_first * 8)) $(((fs_end - fs_first) * 8)) && blockdev --rereadpt /dev/imgstream0 &&
		/usr/sbin/mke2fs -q -t ext4 -b 1024 -O ^has_journal -E nodiscard /dev/imgstream0p1 &&
		mount -t ext4 /dev/imgstream0p1 /mnt
}
# fs_work DIRECT: blocks of 1 KiB, so that most writes are part of one of ours.
fs_work() {
	fio --name="job$1" --directory=/mnt --ioengine=libaio --iodepth=8 --thread --direct="$1" --size=2m --rw=randrw \
		--bsrange=1k-16k --fsync=32 --verify=crc32c --verify_fatal=1 >"/tmp/fio$1" 2>&1
}
# trim: while that works, again and again.
trim() {
	while [ -e /tmp/trim ]; do
		seq 20000 >/mnt/gone && sync && rm /mnt/gone && fstrim /mnt || return
	done
}
# filled: nearly all but what nobody touches is here.
filled() {
	[ "$(value blocks_absent)" -le $((image_blocks - fs_end + 32)) ]
}
attach_there() {
	serve_far /tmp/image
	load disk="$disk" && imgstreamctl fill off
}
no_errors() {
	equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
}

plan 50
make_image
if [ "$BOOT" = 1 ]; then
	attach_far
	add_settings "$disk"
	eventually idle
	cp /tmp/image $model
	truncate -s 33562624 $mine
	$guestdisk stamp $mine mine --start $races --blocks 128
	first_race=$races

	nothing=$(dropped)
	for way in direct durable buffered discarded zeroed; do
		race $way 0 16 ended
	done
	check "all of these blocks came, and were not kept" [ $(($(dropped) - nothing)) -ge 10 ]
	for way in direct durable buffered zeroed; do
		race $way 3 2 sleep_in_kernel
		race $way 4 9 sleep_in_kernel
	done
	check "the newest is read" same /dev/imgstream0 $first_race $races

	check "the repository is half a second away" worsen delay 250ms limit 10000
	single=$(dropped)
	imgstreamctl fill on --max 512
	workers=
	for first in $works; do
		work "$first" $((first + 256)) --threads 1 --operations 100 --mixed &
		workers="$workers $!"
	done
	work $crowd $crowd_end --threads 8 --operations 100 &
	# shellcheck disable=SC2086
	wait $workers $!
	check "those who know what they wrote read that" work_well
	imgstreamctl fill off
	eventually idle
	note "$(($(dropped) - single)) blocks were written while they were fetched"

	check "a file system is made" fs_made
	imgstreamctl fill on --max 1024
	touch /tmp/trim
	trim &
	trimmer=$!
	fs_work 0 &
	worker=$!
	fs_work 1 &
	other=$!
	eventually filled
	imgstreamctl fill off
	wait $other
	check "past the page cache the file system has what was written" said_well $? /tmp/fio1
	wait $worker
	check "and through it" said_well $? /tmp/fio0
	rm /tmp/trim
	wait $trimmer
	equal "it was trimmed all the while" 0 $?
	zeros=$(value blocks_zero)
	check "and once more" fstrim /mnt
	umount /mnt
	sync
	no_errors
	mend
	for part in "0 1" "$fs_first $((fs_end - fs_first))"; do
		dd if=/dev/imgstream0 of=$model bs=4096 skip="${part% *}" seek="${part% *}" count="${part#* }" iflag=direct \
			conv=notrunc 2>/dev/null
	done
	check "there are blocks of zeroes" [ "$zeros" -gt 0 ]

	# The power goes while the repository has something to say to a block that was written.
	kill -STOP "$served"
	be_reader_of_eight 8000 &
	eventually waiting
	check "what is being fetched is written and flushed" $guestdisk stamp --durable /dev/imgstream0 mine --start 8002 --blocks 4
	$guestdisk stamp $model mine --start 8002 --blocks 4
	dd if=$model of="$(disk model)" bs=1M oflag=direct conv=fsync 2>/dev/null
	power_cut
fi
dd if="$(disk model)" of=$model bs=1M 2>/dev/null
check "there is a network" network
check "after a power cut the disk is attached" attach_there
check "everything is as it was written, or the image" same /dev/imgstream0
check "the file system checks clean" /usr/sbin/e2fsck -fn /dev/imgstream0p1
imgstreamctl fill on
eventually independent
check "so it is when nothing is absent" same /dev/imgstream0
imgstreamctl commit --yes --now
eventually committed
no_errors
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
check "everything is home" same "$disk"
stop_serving
network_away
finish
