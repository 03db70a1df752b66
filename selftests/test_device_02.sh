#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Reads, writes of whole and part blocks, zeroes and flushes by several threads, against a model; while the fill runs,
# after a detach, and while a commit moves the blocks home.
# needs-file: image 67117056 lun
# needs-target: image
# needs-file: disk 256M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

plan 14
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
check "what threads wrote is read while the fill runs" \
	$guestdisk exercise /dev/imgstream0 --seed 1 --first 0 --end 4096 --expected /tmp/expected
check "discarded blocks read as zeroes" \
	blkdiscard -o $((12000 * 4096)) -l $((100 * 4096)) /dev/imgstream0
check "they do" $guestdisk verify /dev/imgstream0 zero --start 12000 --blocks 100
check "the module goes" unload
check "the module attaches the disk again" load disk="$(disk disk)"
check "what was written is still there" $guestdisk compare /dev/imgstream0 /tmp/expected --first 0 --end 4096
check "a commit begins" imgstreamctl commit --yes --now
check "threads work while it runs" \
	$guestdisk exercise /dev/imgstream0 --seed 2 --first 4096 --end 8192 --expected /tmp/expected --operations 1000
eventually committed
equal "the state is committed" committed "$(value state)"
check "the module goes" unload
check "everything written is home" $guestdisk compare "$(disk disk)" /tmp/expected --first 0 --end 8192
check "and so is the rest" $guestdisk verify "$(disk disk)" image --start 8192 --blocks 3808
finish
