#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Work that no call waits for, with every Nth allocation of the module failing: what is here is read and written all the
# same; a read of what is not here fails for want of memory or succeeds; connecting and fill try again; a commit goes on.
# Each time some do fail. The target runs inside of the virtual machine.
# needs-kernel: debug
# needs-file: disk 256M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# needs-own-boot: what it sets in debugfs is for the whole machine
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

whole=/dev/imgstream0

# storm N [TIMES]: from now on every Nth allocation fails, so often at most.
storm() {
	storm_times=${2:-1000000}
	for fault in failslab fail_page_alloc; do
		fault_set $fault interval "$1" && fault_set $fault times "$storm_times" && fault_set $fault probability 100 || return
	done
}

# calm: no more do. One result: some did.
calm() {
	storm_met=0
	for fault in failslab fail_page_alloc; do
		fault_set $fault probability 0
		storm_met=$((storm_met + storm_times - $(fault_get $fault times)))
	done
	note "$storm_met allocations failed"
	check "allocations failed" [ $storm_met -gt 0 ]
}

# absent_reads FIRST: 40 reads of blocks that are not here; nothing but want of memory makes one fail.
absent_reads() {
	read_at=$1 read_end=$(($1 + 40)) read_failed=0
	while [ "$read_at" -lt "$read_end" ]; do
		if ! dd if="$whole" of=/dev/null bs=4096 skip="$read_at" count=1 iflag=direct 2>/tmp/said; then
			grep -q 'Cannot allocate memory' /tmp/said || { cat /tmp/said && return 1; }
			read_failed=$((read_failed + 1))
		fi
		read_at=$((read_at + 1))
	done
	echo "$read_failed" >/tmp/failed
}

truncate -s 67117056 /tmp/image
$guestdisk lun /tmp/image
serve /tmp/image

plan 36
check "faults can be ordered" faults_anywhere
check "a disk is laid out" lay_out_own "$(disk disk)"
check "the module loads" load
check "faults are ordered for it alone" faults_in_module
check "it attaches the disk" imgstreamctl attach "$(disk disk)"
check "the fill is switched off" imgstreamctl fill off
for every in 1 2 3 5 8 13; do
	storm $every
	check "absent blocks are read with one allocation in $every failing" absent_reads $((1000 + every * 100))
	calm
	note "$(cat /tmp/failed) of 40 reads failed"
done
check "all of them are right afterwards" $guestdisk verify $whole image --start 1000 --blocks 1500
storm 1
check "what is here is read and written with no allocation succeeding" \
	$guestdisk exercise $whole --seed 3 --first 1000 --end 2400 --expected /tmp/expected
check "it is right" $guestdisk compare $whole /tmp/expected --first 1000 --end 2400
calm

# Each attempt dies at its first allocation: test_fault_05 goes through the others.
stop_serving
eventually gone
storm 1 5
serve /tmp/image
eventually ready
calm
pass "it connects again after allocations for it failed"
# It pauses for some seconds after each.
storm 13 3
imgstreamctl fill on
eventually independent
calm
pass "the fill ends after some of its allocations failed"
check "it detaches" imgstreamctl detach
check "it gets settings" add_settings "$(disk disk)"
check "the disk has nothing wrong" imgstreamctl check "$(disk disk)"
check "it attaches again" imgstreamctl attach "$(disk disk)"
storm 2
check "a commit begins" imgstreamctl commit --yes --now
eventually committed
calm
pass "and ends with every 2nd allocation failing"
check "what was written is right" $guestdisk compare $whole /tmp/expected --first 1000 --end 2400
check "the rest as well" $guestdisk verify $whole image --start 2400
check "the module goes" unload
finish
