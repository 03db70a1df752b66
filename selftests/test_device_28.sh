#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A disk that takes its time: each write and each flush is held up, reads less. All is as ever, later: what is written while
# blocks are filled in, and while a commit takes them home, is read as it was written, and afterwards it is on the disk.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod dm_delay
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

below=$(disk disk)
# delay READ_MS WRITE_MS FLUSH_MS: from now on, the whole disk.
delay() {
	delayed="$below 0"
	dmsetup --noudevsync suspend --noflush weak &&
		dmsetup --noudevsync reload weak \
			--table "0 $(blockdev --getsz "$below") delay $delayed $1 $delayed $2 $delayed $3" &&
		dmsetup --noudevsync resume weak
}
# The device is used in parts of a thousand blocks. exercise PART: random work on it. compare PART DEVICE: what that left is
# there.
exercise() {
	$guestdisk exercise /dev/imgstream0 --seed "$1" --operations 60 --first $(($1 * 1000)) --end $(($1 * 1000 + 1000)) \
		--expected "/tmp/expected$1"
}
compare() {
	$guestdisk compare "$2" "/tmp/expected$1" --first $(($1 * 1000)) --end $(($1 * 1000 + 1000))
}
# meanwhile PART: its work begins.
meanwhile() {
	exercise "$1" >/tmp/exercise 2>&1 &
	exercise=$!
}

plan 17
check "a disk that can be held up" weak_disk disk
check "it is laid out" lay_out "$weak"
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
check "it becomes slow" delay 5 40 80
check "work on absent blocks is well" exercise 0
imgstreamctl fill on
meanwhile 1
eventually independent
wait $exercise
check "work during the fill is well" said_well $? /tmp/exercise
imgstreamctl commit --yes --now
meanwhile 2
eventually committed
wait $exercise
check "work during the commit is well" said_well $? /tmp/exercise
for part in 0 1 2; do
	check "part $part is as it was written" compare $part /dev/imgstream0
done
equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
check "the module goes" unload
for part in 0 1 2; do
	check "part $part is on the disk" compare $part "$weak"
done
check "so is the rest" $guestdisk verify "$weak" image --start 3000 --blocks 5192
check "the disk is given back" weak_disk_away
finish
