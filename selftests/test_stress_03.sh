#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# With I/O in flight nobody takes the module or the device away, and a disk that is unplugged fails what is asked of it and
# holds nothing up: programs end, the device and the module go, and no thread is left. When the disk is back it has all that
# was flushed.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget fio
# needs-own-boot: takes a disk out, boots two times
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)

# no_threads: none of ours is left in the kernel.
no_threads() {
	! grep -h R-imgstream /proc/[0-9]*/comm
}
# Without the repository, so that it is known what is fetched afterwards.
attach() {
	load disk="$disk" && imgstreamctl fill off
}
unplugged() {
	unplug disk && eventually [ ! -e "$disk" ]
}
# Not `unload`, which has another way on the debug kernel.
refused() {
	! rmmod imgstream && [ "$(cat /sys/module/imgstream/initstate)" = live ]
}
# Where work_hard works.
all_here() {
	dd if=/dev/imgstream0 of=/dev/null bs=1M skip=12 count=16 iflag=direct
}

plan 34
make_image
serve /tmp/image
if [ "$BOOT" = 2 ]; then
	check "when the disk is back it checks clean" imgstreamctl check "$disk"
	check "it is attached" load disk="$disk"
	check "what was flushed is there" $guestdisk verify /dev/imgstream0 mine --start 1000 --blocks 100
	imgstreamctl commit --yes --now
	eventually committed
	check "the module goes" unload
	check "all is home that nobody wrote" sh -c "
		$guestdisk verify $disk image --blocks 1000 &&
		$guestdisk verify $disk mine --start 1000 --blocks 100 &&
		$guestdisk verify $disk image --start 1100 --blocks 1972 &&
		$guestdisk verify $disk image --start 7168 --blocks 1024"
	stop_serving
	finish
fi
check "a disk is laid out" lay_out_own "$disk"
add_settings "$disk"

for round in 1 2; do
	stop_serving
	check "the module attaches it ($round)" attach
	serve /tmp/image
	work_hard 12 16
	check "the module does not go while work goes on" refused
	# A program can be stopped, and leaves who asked it waiting.
	kill -STOP "$served"
	be_reader $((2000 + round)) &
	reader=$!
	eventually waiting
	check "nor while it waits for the network" refused
	refuse "nor does the device" imgstreamctl detach
	kill $worker
	kill -CONT "$served"
	wait $worker $reader
	imgstreamctl fill on --max 512
	check "without it, the device goes under the fill" imgstreamctl detach
	check "and the module" unload
	check "and all of its threads" no_threads
done

check "the module attaches it again" attach
check "blocks are written and flushed" $guestdisk stamp --durable /dev/imgstream0 mine --start 1000 --blocks 100
check "others are fetched" all_here
work_hard 12 16
kill -STOP "$served"
be_reader 3000 &
reader=$!
eventually waiting
check "a commit begins" imgstreamctl commit --yes
check "the disk is unplugged" unplugged
refuse "what is written then fails" $guestdisk stamp /dev/imgstream0 lost --start 1000 --blocks 1
refuse "what is read fails" $guestdisk verify /dev/imgstream0 mine --start 1000 --blocks 1
refuse "who waits for the network goes on waiting" ended $reader
kill -CONT "$served"
wait $reader
equal "until it is there" 0 $?
# It may have waited as well: what the disk cannot read and equals the image comes from the repository.
wait $worker
refuse "the work ends with an error" [ $? = 0 ]
check "the state can be read" imgstreamctl status
check "the device goes" imgstreamctl detach
check "and the module" unload
check "and all of its threads" no_threads
next_boot
