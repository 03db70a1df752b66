#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Writes that another's claim and then a batch of a commit hold up, more of them than any reserve has, while the allocator
# fails: they hold nothing of a reserve while they wait, so nobody is kept from letting them go on.
# needs-kernel: debug
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup dd
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

reserve=64
writers=$((reserve + 16))
# What the module takes from the caches of bios is not there any more, so that it lives on its reserves.
no_bios() {
	for cache in /sys/kernel/slab/bio-*; do
		echo 1 >"$cache/failslab" || return
	done
	faults_anywhere && faults_in_module && fault_set failslab cache-filter Y && fault_set failslab times -1 &&
		fault_set failslab probability 100
}
bios() {
	fault_set failslab probability 0
}
# be_writer BLOCK BLOCKS [FLAG]: writes them with one bio, past the page cache, which busybox cannot.
be_writer() {
	exec /usr/bin/dd if=/dev/zero of=/dev/imgstream0 bs=$(($2 * 4096)) seek=$(($1 * 4096)) count=1 \
		oflag=seek_bytes,direct"${3:-}" conv=notrunc 2>/dev/null
}
# begin COUNT BLOCK BLOCKS [FLAG]: so many of them, which all get stuck in the kernel.
begin() {
	begin_count=$1
	shift
	while [ "$begin_count" -gt 0 ]; do
		be_writer "$@" &
		pids="$pids $!"
		begin_count=$((begin_count - 1))
	done
	# shellcheck disable=SC2086
	eventually sleep_in_kernel $pids
}
# hold_up BLOCKS [FLAG]: block 1000 has no data and somebody writes it. All others who write it, and BLOCKS in all, wait for
# him, he for the disk, and a batch of the commit for all of them; then the disk goes on.
hold_up() {
	blkdiscard -o $((1000 * 4096)) -l 4096 /dev/imgstream0 || return
	dmsetup --noudevsync suspend --noflush weak
	begin 1 1000 1
	begin "$writers" 1000 "$@"
	# It may wait for the disk as well, behind the journal.
	imgstreamctl resume &
	pids="$pids $!"
	eventually commit_held_up
	dmsetup --noudevsync resume weak
	for pid in $pids; do
		wait "$pid" || return
	done
	pids=''
	eventually stopped
}
pids=''

plan 9
check "a disk that can be held" weak_disk disk
lay_out "$weak" >/dev/null
weaken $((3000 * 4096)) 4096
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
imgstreamctl commit --yes --now
eventually stopped
pass "a place that cannot be written stops a commit"
check "the allocator fails" no_bios
check "a claim and a batch hold more writes up that have to be split than are in reserve" hold_up 2
check "and more durable writes" hold_up 1 ,dsync
bios
weaken
check "the commit is told to go on" imgstreamctl resume
eventually committed
pass "and ends"
check "the module goes" unload
weak_disk_away
finish
