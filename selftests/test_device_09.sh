#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A disk is attached without its repository although the backup of its partition table is not here: what it waits for is
# said, and can be given up; with the repository the partitions appear.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-file: plain 192M
# needs-disk: plain
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl sfdisk
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

known() {
	[ "$(value partitions)" = known ]
}
says_why() {
	grep -q "waiting for the repository at $PORTAL: disconnected" /tmp/attach
}
# The boot region of an image with a GPT; its backup would be in the image's last blocks.
table() {
	truncate -s 33554432 /tmp/table &&
		printf 'label: gpt\nstart=2048,size=4096\n' | sfdisk --quiet /tmp/table &&
		dd if=/tmp/table of="$(disk disk)" bs=4096 count=5 conv=notrunc,fsync
}

plan 16
check "a disk is laid out" lay_out "$(disk disk)"
check "for an image with a GPT" table
check "and one for an image without" lay_out "$(disk plain)"
target_stop
check "the module attaches the first without a repository" load disk="$(disk disk)"
eventually gone
eventually waiting
equal "it says that it does not know the partitions" waiting "$(value partitions)"
refuse "there are none" [ -e /dev/imgstream0p1 ]
check "the device can be opened, and its start read" $guestdisk verify /dev/imgstream0 image --start 5 --blocks 8
check "it is detached" imgstreamctl detach
imgstreamctl attach "$(disk disk)" >/tmp/attach 2>&1 &
attaching=$!
eventually says_why
kill $attaching
wait $attaching
pass "who attaches it is told why it takes so long, and can give up"
target_start
eventually known
check "with the repository the partition is there" [ -b /dev/imgstream0p1 ]
check "the device goes" imgstreamctl detach
target_stop
check "what is known needs no repository" imgstreamctl attach "$(disk disk)"
check "there is the partition" [ -b /dev/imgstream0p1 ]
check "the backup of the table is here" $guestdisk verify /dev/imgstream0 image --start 8187 --blocks 5
imgstreamctl detach
check "a disk without a GPT needs it neither" imgstreamctl attach "$(disk plain)"
check "the module goes" unload
target_start
finish
