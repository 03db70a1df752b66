#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Memory is short, and both swap and the root of those who want it are on the device: their programs come from the repository
# when they are first run, and are thrown out of memory and read again like what was swapped out. All goes on, and everything
# comes back as it was, also while the repository is dead; a cgroup that wants more than it may have dies alone.
# needs-file: image 234889216 root 33554432 128 bash dd fio stress-ng
# needs-target: image
# needs-file: disk 768M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl /usr/sbin/e2fsck
# needs-module: ext4
# needs-memory: 300
# needs-cmdline: rootfstype=ramfs
# needs-long: it waits for memory to run out
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
group=/sys/fs/cgroup/small
root=/mnt
# Blocks: the file system, which is the image's, then swap to the end.
fs_first=8192 swap_first=40960

partitions() {
	write_mbr /dev/imgstream0 $((fs_first * 8)) $(((swap_first - fs_first) * 8)) $((swap_first * 8)) $((16384 * 8)) &&
		blockdev --rereadpt /dev/imgstream0
}
mount_root() {
	mount -t ext4 /dev/imgstream0p1 "$root" && mount -t devtmpfs dev "$root/dev" && mount -t proc proc "$root/proc" &&
		mount -t sysfs sys "$root/sys" && mount -t tmpfs tmp "$root/tmp"
}
unmount_root() {
	umount "$root/tmp" "$root/sys" "$root/proc" "$root/dev" && umount "$root"
}
# be_in_root PROGRAM...: becomes that program of the root.
be_in_root() {
	exec chroot $root "$@"
}
# fetched_for PROGRAM...: runs it; its text is not here before that, and nothing else is fetched.
fetched_for() {
	fetched_before=$(value fetched_bytes)
	(be_in_root "$@") && [ $(($(value fetched_bytes) - fetched_before)) -ge 1048576 ]
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
# refaulted PAGES: so many pages of files had been thrown out, and were read again. Those of what the machine was booted from
# (ramfs) cannot be thrown out.
mark_refaulted() {
	refaults=$(count workingset_refault_file)
}
refaulted() {
	[ $(($(count workingset_refault_file) - refaults)) -ge "$1" ]
}
# Memory that is checked, more than there is.
fill_memory() {
	mebibytes=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024 + 24))
	be_in_root stress-ng --vm 1 --vm-bytes ${mebibytes}M --vm-keep --vm-method zero-one --verify --timeout 0 \
		--temp-path /tmp >/tmp/stress 2>&1 &
	stress=$!
}
# Programs that begin and end all the time, and so many pages of text with them.
run_programs() {
	touch $root/tmp/run
	be_in_root bash -c 'while [ -e /tmp/run ]; do stress-ng --version && dd --version || exit; done' >/tmp/programs 2>&1 &
	programs=$!
}
# Work of a file system that does not fit into memory, checked.
work() {
	be_in_root fio --name=checked --directory=/work --size=6m --numjobs=2 --thread --rw=randwrite --bsrange=1k-32k --fsync=32 \
		--verify=crc32c --verify_fatal=1 --loops="${STRESS_ROUNDS:-1}" >/tmp/fio 2>&1 &
	fio=$!
}
# worked: what work returned. How far it is, is said meanwhile: where memory is this short it takes minutes if the computer is
# slow.
worked() {
	while kill -0 $fio 2>/dev/null; do
		note "$(count pswpout) pages went to swap, $(count pswpin) came back"
		sleep 20
	done
	wait $fio
}
# greedy BYTES: reads through the page cache more than the cgroup may have, then wants so much memory.
be_greedy() {
	echo 0 >"$group/cgroup.procs" && be_in_root bash -c "dd if=/dev/imgstream0 of=/dev/null bs=1M skip=1 count=24 2>/dev/null
		exec dd if=/dev/zero of=/dev/null bs=$1 count=1 2>/dev/null"
}
greedy() {
	(be_greedy "$1")
}
killed() {
	sed -n 's/^oom_kill //p' $group/memory.events
}
# As the recipe left them, by what the device has.
programs_intact() {
	echo 3 >/proc/sys/vm/drop_caches
	(cd "$root" && sha256sum -c sums | grep -v ': OK$')
	[ $? = 1 ]
}
plan 25
check "a disk is laid out" lay_out "$disk"
add_settings "$disk"
check "the module attaches it" load disk="$disk"
imgstreamctl fill off
check "it has partitions" partitions
check "one is a root, which is mounted" mount_root
check "the other is swap" mkswap /dev/imgstream0p2
swapon /dev/imgstream0p2
mount -t cgroup2 cgroup /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir $group
echo 16M >$group/memory.max
echo 0 >$group/memory.swap.max

mark_swapped
check "a program of the root comes from the repository" fetched_for stress-ng --version
fill_memory
eventually swapped 500
check "so does one while memory is short" fetched_for fio --version
mark_refaulted
run_programs
eventually refaulted 500
pass "the programs' text goes, and comes back"
imgstreamctl fill on --max 64
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
refuse "of which something is needed yet" independent
target_start
worked
check "the work on the file system is well" said_well $? /tmp/fio
kill -ALRM $stress
wait $stress
check "the memory is as it was left" said_well $? /tmp/stress
rm $root/tmp/run
wait $programs
check "each program has run" said_well $? /tmp/programs
check "all of it comes back" swapoff /dev/imgstream0p2
check "the programs are as they were" programs_intact
check "the root is unmounted" unmount_root
check "and clean" /usr/sbin/e2fsck -fn /dev/imgstream0p1
equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
rmdir $group
umount /sys/fs/cgroup
check "the module goes" unload
check "the disk checks clean" imgstreamctl check "$disk"
finish
