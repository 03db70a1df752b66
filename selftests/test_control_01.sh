#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What is refused, with which words, and that a refusal changes nothing; and the files in sysfs.
# needs-file: empty 256G
# needs-disk: empty
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# One line, and not an empty one.
one_line() {
	[ "$(wc -l <"$1")" = 1 ] && [ -n "$(cat "$1")" ]
}
all_files() {
	for file in "$status"/*; do
		one_line "$file" || return
	done
	[ "$(ls "$status" | wc -l)" = 33 ]
}
not_writable() {
	for file in "$status"/*; do
		[ "$(stat -c %a "$file")" = 444 ] || return
	done
}
# Reads of the empty disk so far.
reads() {
	read -r read_count _ <"/sys/block/$(basename "$(disk empty)")/stat"
	echo "$read_count"
}
make_image
serve /tmp/image

plan 22
refuse "a disk that is not there is refused" load disk=/dev/nothing
before=$(reads)
refuse "a disk without a superblock is refused" load disk="$(disk empty)"
check "after a look at some places near its end" [ $(($(reads) - before)) -lt 100 ]
refuse "and neither leaves the module" grep -q '^imgstream ' /proc/modules
check "without a disk the module loads" load
check "the control device is root's" [ "$(stat -c %a /dev/imgstream-control)" = 600 ]
check "detach without a disk is refused" says "no disk is attached" imgstreamctl detach
check "attaching an empty disk is refused" says "superblock" imgstreamctl attach "$(disk empty)"
check "a disk is laid out" lay_out_own "$(disk disk)"
check "and attached" imgstreamctl attach "$(disk disk)"
check "a second one is not" says "attached already" imgstreamctl attach "$(disk disk)"
check "every file says one thing" all_files
check "and none can be written" not_writable
equal "the state is streaming" streaming "$(value state)"
ln -s "$(disk disk)" /tmp/link
mknod /tmp/node b $((0x$(stat -c %t "$(disk disk)"))) $((0x$(stat -c %T "$(disk disk)")))
check "nobody rolls back beside the module" says "it is attached; call rollback without a disk" imgstreamctl rollback /tmp/link --yes
check "by whatever name" says "is in use" imgstreamctl rollback /tmp/node --yes
check "a pause without a commit is refused" says "no commit" imgstreamctl pause
refuse "a minimum rate above the maximum is refused" imgstreamctl fill on --min 2000 --max 1000
check "rates are taken" imgstreamctl fill on --min 1000 --max 2000
equal "and shown" "on 1000 2000" "$(value fill)"
check "the module goes" unload
refuse "and all files with it" ls /sys/block/imgstream0 /dev/imgstream-control
stop_serving
finish
