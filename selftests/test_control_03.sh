#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Control areas that the module refuses, each with its sentence; a disk that is found; a commit that is watched, paused and
# resumed, and whose end another process does.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-file: other 192M
# needs-disk: other
# needs-file: big 192M
# needs-disk: big 4k
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup flock
# needs-own-boot: looks at all disks
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
other=$(disk other)
big=$(disk big)
# refused CODE WORDS COMMAND...: COMMAND exits with CODE and says WORDS.
refused() {
	refused_code=$1 refused_words=$2
	shift 2
	refused_output=$("$@" 2>&1)
	[ $? = "$refused_code" ] && echo "$refused_output" | grep -q "$refused_words"
}
# The module itself, whatever imgstreamctl would say before: how it refuses to be loaded.
load_refused() {
	dmesg -c >/dev/null
	! load disk="$2" && dmesg | grep -q "imgstream: .*$2.* is not attached: .*$1"
}
lay_out_newer() {
	lay_out "$other" && $guestdisk newer "$other"
}
# Of the control area only the superblocks are left.
damage() {
	dd if=/dev/zero of="$1" bs=4096 seek=$(($2 / 4096 + 1)) count=256 conv=notrunc,fsync
}
wipe() {
	dd if=/dev/zero of="$1" bs=1M conv=fsync 2>/dev/null
}
lines() {
	[ "$(wc -l <"$1")" -ge "$2" ]
}

plan 28
layout=$(lay_out "$disk")
control=$(place C "$layout")
check "a disk is laid out" [ "${control:-0}" -gt 0 ]

check "a disk with blocks of 4 KiB gets its copy" dd if="$disk" of="$big" bs=1M conv=fsync
check "and is refused" load_refused "logical block size" "$big"
wipe "$big"
check "a smaller disk with the same contents" \
	dmsetup --noudevsync create small --table "0 $((176 << 11)) linear $disk 0"
check "is refused" load_refused "does not fit this disk" /dev/dm-0
dmsetup --noudevsync remove small
check "a disk without map and journal" lay_out "$other"
damage "$other" "$control" 2>/dev/null
check "is refused" load_refused "control area is damaged" "$other"
check "a disk of a newer version" lay_out_newer
check "is refused" load_refused "newer imgstream" "$other"
check "nothing of that leaves the module" [ ! -d /sys/module/imgstream ]

check "the module loads" load
check "imgstreamctl says so of the newer one" refused 32 "newer" imgstreamctl attach "$other"
wipe "$other"
check "the only disk with a migration is found" imgstreamctl attach --scan
equal "it is that one" "${disk#/dev/}" "$(value disk)"
imgstreamctl fill off

check "its status has words for programs" sh -c 'imgstreamctl status --json | grep -q "\"state\":\"streaming\""'
check "and for people" sh -c 'imgstreamctl status | grep -q "^state  *streaming"'
imgstreamctl watch --json >/tmp/watch &
watching=$!
eventually lines /tmp/watch 2
kill $watching
check "who watches gets one object a line" [ "$(grep -c '^{.*"state":"streaming".*}$' /tmp/watch)" -ge 2 ]

target_stop
eventually gone
imgstreamctl commit --yes --now --wait >/tmp/waited 2>&1 &
waiting=$!
# As imgstream-finish.service does. The process above must not have it, too.
exec 9>/run/imgstream-finish.lock
flock 9
eventually grep -q "waiting for the repository at $PORTAL: disconnected" /tmp/waited
pass "who waits for a commit is told what it waits for"
check "it is paused" imgstreamctl pause
equal "and says so" paused "$(value commit)"
eventually grep -q "the commit is paused" /tmp/waited
target_start
eventually ready
# Without the pause it would be through long before.
sleep 2
equal "a paused commit does not move" 0 "$(value copied)"
check "it goes on" imgstreamctl resume
eventually committed
eventually grep -q "does the end of it; waiting for that" /tmp/waited
pass "who waits is told that another does the end of it"
# That one is done: there is no superblock any more.
wipe "$disk"
exec 9>&-
wait $waiting
equal "and is through when that one is" 0 $?
equal "with the last sentence of every commit" "committed: from the next boot on this is a plain disk" "$(tail -n 1 /tmp/waited)"
check "watching ends when nothing is absent" imgstreamctl watch --until-independent
check "the device goes" imgstreamctl detach
check "the module goes" unload
finish
