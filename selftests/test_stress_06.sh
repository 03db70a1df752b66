#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The clock jumps by ten years, either way, while reads wait for the network, while all is well, and while a commit runs:
# nothing expires, nothing stops. And the machine neither hibernates nor goes on from an image while the disk is attached.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# needs-own-boot: sets the clock
# needs-kernel: stock debug-long
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
# jump YEARS: the clock, by so many years of 365 days.
jump() {
	date -s "@$(($(date +%s) + $1 * 365 * 86400))"
}
home() {
	[ "$(value copied)" -ge "$1" ] || committed
}
# goes_on: the commit is not where it was.
goes_on() {
	goes_on_from=$(value copied)
	eventually home $((goes_on_from + 1))
}
# Up to the point where everything is frozen; then it wakes.
hibernate() {
	echo 0 >/sys/module/hibernate/parameters/pm_test_delay &&
		echo freezer >/sys/power/pm_test &&
		echo disk >/sys/power/state
}
# What who would bring a kernel back from its image does first.
restore() {
	true >/dev/snapshot
}
said() {
	dmesg | grep "imgstream: $1 is refused: an imgstream disk is attached"
}

plan 38
make_image
serve /tmp/image
check "a disk is laid out" lay_out_own "$disk"
add_settings "$disk"
check "the module attaches it" load disk="$disk"
imgstreamctl fill off
eventually idle

for years in 10 -20 11; do
	serving=$(value reconnects)
	check "with a connection the clock jumps by $years years" jump $years
	check "blocks are read" $guestdisk verify /dev/imgstream0 image --start $((5000 + years * 10)) --blocks 50
	equal "by the same connection" "$serving" "$(value reconnects)"
	stop_serving
	eventually gone
	into=/tmp/read be_reader $((6000 + years)) &
	reader=$!
	eventually waiting
	check "while one waits it jumps by $years years" jump $years
	refuse "who waits goes on waiting" ended $reader
	serve /tmp/image
	wait $reader
	check "and has its block" cmp -n 4096 /tmp/read /tmp/image 0 $(((6000 + years) * 4096))
	check "the clock goes back" jump $((-years))
done

check "a commit begins" imgstreamctl commit --yes --max 2048
for years in 10 -20 11; do
	jump $years >/dev/null
	check "it runs on after $years years" goes_on
done
refuse "the machine does not hibernate" hibernate
check "and says why" said hibernation
refuse "nor does it go on from an image" restore
check "and says why" said "the image of a hibernated kernel"
imgstreamctl commit --yes --now
eventually committed
equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
check "the device goes" imgstreamctl detach
check "without it the machine hibernates" hibernate
check "and goes on from an image" restore
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
check "all is home" $guestdisk verify "$disk" image --blocks 8192
stop_serving
finish
