#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Memory is short, and both swap and a file system are on the device, with blocks of which a part has to be fetched: all goes
# on, what was swapped out comes back as it was, also while the repository is dead; a cgroup that wants more than it may have
# dies alone.
# needs-file: image 134225920 lun
# needs-target: image
# needs-file: disk 512M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl fio stress-ng /usr/sbin/mke2fs /usr/sbin/e2fsck
# needs-module: ext4
# needs-memory: 400
# needs-cmdline: rootfstype=ramfs
# needs-long: it waits for memory to run out
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
group=/sys/fs/cgroup/small
# Blocks: the file system, then swap to the end.
fs_first=8192 swap_first=16384

partitions() {
	write_mbr /dev/imgstream0 $((fs_first * 8)) $(((swap_first - fs_first) * 8)) $((swap_first * 8)) $((16384 * 8)) &&
		blockdev --rereadpt /dev/imgstream0
}
count() {
	sed -n "s/^$1 //p" /proc/vmstat
}
# swapped PAGES: so many more have gone, and so many have come back.
mark_swapped() {
	out=$(count pswpout) in=$(count pswpin)
}
swapped() {
	[ $(($(count pswpout) - out)) -ge "$1" ] && [ $(($(count pswpin) - in)) -ge "$1" ]
}
# Memory that is checked, more than there is: what the machine was booted from stays (ramfs), and takes no swap space.
fill_memory() {
	mebibytes=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024 + 24))
	stress-ng --vm 1 --vm-bytes ${mebibytes}M --vm-keep --vm-method zero-one --verify --timeout 0 \
		--temp-path /tmp >/tmp/stress 2>&1 &
	stress=$!
}
# Work of a file system that does not fit into memory, checked.
work() {
	fio --name=work --directory=/mnt --size=6m --numjobs=2 --thread --rw=randwrite --bsrange=1k-32k --fsync=32 \
		--verify=crc32c --verify_fatal=1 --loops="${STRESS_ROUNDS:-1}" >/tmp/fio 2>&1 &
	fio=$!
}
# greedy BYTES: reads through the page cache more than the cgroup may have, then wants so much memory.
be_greedy() {
	echo 0 >"$group/cgroup.procs" && dd if=/dev/imgstream0 of=/dev/null bs=1M skip=1 count=24 2>/dev/null &&
		exec dd if=/dev/zero of=/dev/null bs="$1" count=1 2>/dev/null
}
greedy() {
	(be_greedy "$1")
}
killed() {
	sed -n 's/^oom_kill //p' $group/memory.events
}
plan 20
check "a disk is laid out" lay_out "$disk"
add_settings "$disk"
check "the module attaches it" load disk="$disk"
imgstreamctl fill on --max 64
check "it has partitions" partitions
check "one is a file system" /usr/sbin/mke2fs -q -t ext4 -b 1024 -E nodiscard /dev/imgstream0p1
check "which is mounted" mount -t ext4 /dev/imgstream0p1 /mnt
check "the other is swap" mkswap /dev/imgstream0p2
swapon /dev/imgstream0p2
mount -t cgroup2 cgroup /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir $group
echo 16M >$group/memory.max
echo 0 >$group/memory.swap.max

mark_swapped
fill_memory
work
eventually swapped 2000
pass "memory goes to the device, and comes back"
check "blocks are fetched" $guestdisk verify /dev/imgstream0 image --start 2000 --blocks 1000
refuse "a cgroup that wants too much dies" greedy 64M
equal "once" 1 "$(killed)"
check "alone" kill -0 $stress
target_stop
eventually gone
mark_swapped
eventually swapped 1000
pass "with a dead repository memory goes and comes"
target_start
wait $fio
check "the work on the file system is well" said_well $? /tmp/fio
kill -ALRM $stress
wait $stress
check "the memory is as it was left" said_well $? /tmp/stress
check "all of it comes back" swapoff /dev/imgstream0p2
check "the file system is unmounted" umount /mnt
check "and clean" /usr/sbin/e2fsck -fn /dev/imgstream0p1
equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
rmdir $group
umount /sys/fs/cgroup
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
finish
