#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Thousands of reads wait for a dead network, and a suspend to RAM, CPUs that go and come, queues that are frozen to be set
# up anew, and what is read and written here get past them. When the network is back every read has its data. A connection that
# the other end has forgotten while the machine slept is made anew, and what was asked by the old one comes by the new one.
# needs-disk: disk
# needs-file: disk 192M
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget fio /usr/bin/ip
# needs-module: veth
# needs-cmdline: no_console_suspend
# needs-long: minutes without KVM
# needs-own-boot: suspends the machine
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

disk=$(disk disk)
below=/sys/block/${disk#/dev/}
head=/sys/block/imgstream0
stream=/sys/block/imgstream0-stream
tags=128
sleepers=200
checked="ioengine=libaio
thread
direct=1
bs=4k
verify=crc32c
verify_header_seed=0"

full() {
	[ "$(value inflight)" -ge "$tags" ]
}
# Nothing of it needs the network; TEXT says what goes on meanwhile.
alive() {
	alive_word=$1
	shift
	check "$*: what is here is read" $guestdisk verify /dev/imgstream0 image --start 100 --blocks 100
	check "$*: and written durably" $guestdisk stamp --durable /dev/imgstream0 "$alive_word" --start 200 --blocks 20
	check "$*: so is what is new" $guestdisk stamp --durable /dev/imgstream0 "$alive_word" --start 7000 --blocks 20
	check "$*: and read" $guestdisk verify /dev/imgstream0 "$alive_word" --start 7000 --blocks 20
	check "$*: the state is there" imgstreamctl status
	check "$*: and the reads wait" full
}
# Until the machine is woken.
suspend() {
	host wake && echo deep >/sys/power/mem_sleep && echo mem >/sys/power/state
}
# forget: the wire is cut, and who is at its other end then does not know our connection; nobody has told us. remember: the wire
# is there again.
forget() {
	ip -n far link set far0 down
	stop_serving
	serve_far /tmp/image
}
remember() {
	ip -n far link set far0 up
}
# sleep_over TEXT: the other end forgets the connection, which is ready now, and nothing comes through before the machine has
# slept.
sleep_over() {
	eventually ready
	lost=$(value reconnects)
	forget
	check "$*: the machine sleeps and wakes" suspend
	check "$*: the wire is there" remember
}
made_anew() {
	equal "$*: by a new connection" $((lost + 1)) "$(value reconnects)"
}
# Nobody wakes it: it has to be given up, after 1 s instead of 20.
suspend_in_vain() {
	echo 1000 >/sys/power/pm_freeze_timeout && echo mem >/sys/power/state
}
# online 0|1: the second CPU.
online() {
	echo "$1" >/sys/devices/system/cpu/cpu1/online
}
# set_up QUEUE: freezes and thaws it, by each attribute that does and that it has.
set_up() {
	for scheduler in $(tr -d '[]' 2>/dev/null <"$1/queue/scheduler"); do
		echo "$scheduler" >"$1/queue/scheduler" || return
	done
	for name in nr_requests wbt_lat_usec max_sectors_kb; do
		value=$(cat "$1/queue/$name" 2>/dev/null) || continue
		echo $((value / 2 + 1)) >"$1/queue/$name" && echo "$value" >"$1/queue/$name" || return
	done
}
read_block() {
	exec dd if=/dev/imgstream0 of=/tmp/read bs=4096 skip="$1" seek="$1" count=1 iflag=direct conv=notrunc 2>/dev/null
}

read_well() {
	[ ! -e /tmp/failed ] && $guestdisk verify /tmp/read image --start 6201 --blocks "$sleepers"
}

make_image
# Blocks that know whether they are whole, so that all of many that come at once can be looked at.
cat >/tmp/make <<END
[make]
filename=/tmp/image
$checked
direct=0
ioengine=psync
rw=write
do_verify=0
offset=8m
size=16m
END
sed 's/make/make more/; s/^offset.*/offset=26m/; s/^size.*/size=1m/' /tmp/make >/tmp/more
cat >/tmp/jobs <<END
[global]
filename=/dev/imgstream0
$checked
rw=randread
iodepth=2048
size=8m
[first]
offset=8m
[second]
offset=16m
END
sed 's/^size.*/size=1m/; s/^offset=8m/offset=26m/; /second/,$d' /tmp/jobs >/tmp/few

plan 52
check "the image has blocks that can be checked" fio /tmp/make
check "also elsewhere" fio /tmp/more
check "there is a network" network
serve_far /tmp/image
check "a disk is laid out" lay_out_far "$disk"
add_settings "$disk"
check "the module attaches it" load disk="$disk"
imgstreamctl fill off
eventually idle
check "some blocks are fetched" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 300
sleep_over "with nothing under way"
check "what is not here is read" $guestdisk verify /dev/imgstream0 image --start 400 --blocks 10
made_anew "it comes"
stop_serving
eventually gone
fio /tmp/jobs >/tmp/fio 2>&1 &
fio=$!
eventually full
alive one "thousands wait"
check "the machine sleeps and wakes" suspend
alive two "after that"

readers=
for n in $(seq $sleepers); do
	read_block $((6200 + n)) &
	readers="$readers $!"
done
# shellcheck disable=SC2086
eventually sleep_in_kernel $readers
refuse "while programs sleep in reads the machine does not" suspend_in_vain
equal "for they cannot be frozen" freeze "$(cat /sys/power/suspend_stats/last_failed_step)"
check "a CPU goes" online 0
alive three "on one CPU"
check "it comes back" online 1
check "the queue of the disk is set up anew" set_up "$below"
check "and that of the device" set_up $head
set_up $stream &
setter=$!
eventually sleep_in_kernel $setter
alive four "with the stream queue frozen"
refuse "and who froze it waits" ended $setter

serve_far /tmp/image
wait $setter
equal "with the network back the stream queue is set up" 0 $?
wait $fio
equal "each read of thousands has its data" 0 $?
for reader in $readers; do
	wait "$reader" || echo "$reader" >>/tmp/failed
done
check "and so has each of those who slept" read_well
echo 20000 >/sys/power/pm_freeze_timeout
# Those who have asked, and have no answer yet.
kill -STOP "$served"
fio /tmp/few >/tmp/fio 2>&1 &
fio=$!
eventually waiting
sleep_over "with reads under way"
wait $fio
equal "they have their data" 0 $?
made_anew "it comes"
equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
stop_serving
network_away
finish
