#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The stage on a disk that loses what was not flushed. A source whose shrink was cut, so that no kernel mounts it, is
# mended, shrunk and switched. Then the machine is cut between the last boot block and the step behind it: it comes up with
# the target if all boot blocks are the target's; with one that is torn it puts the source back.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 256M cut-resize
# needs-disk: disk volatile
# needs-module: ext4
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dumpe2fs e2fsck resize2fs unshare
# needs-own-boot: its power is cut
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
mkdir -p /imgstream /tmp/mounted
# starts_again COMMAND...: what it says goes to /tmp/said. In a process namespace of its own, which ends when the program
# starts the computer again.
starts_again() {
	unshare --fork --pid "$@" >/tmp/said 2>&1
	cat /tmp/said
	grep -q "the computer starts again" /tmp/said
}
said() {
	cat /tmp/said
	grep -q "$1" /tmp/said
}
state() {
	imgstreamctl dump "$disk" | grep -qw "$1"
}
read_only() {
	mount -t ext4 -o ro "${disk}1" /tmp/mounted
}
# Of the step behind the last boot block nothing is durable.
cut_after_the_last_boot_block() {
	$guestdisk storing "$disk" && state storing
}
as_it_was() {
	read_only || return
	(cd /tmp/mounted && sha256sum -c sums >/tmp/sums && [ "$(grep -c OK /tmp/sums)" = 40 ] && ! [ -e boot/grub/custom.cfg ])
	as_it_was=$?
	umount /tmp/mounted
	return "$as_it_was"
}

plan 19
case $BOOT in
1)
	refuse "a file system whose resize2fs was cut is not mounted" read_only
	check "the stage gets its payload" $guestdisk payload "$disk" /imgstream/payload \
		--portal "$PORTAL" --target "$(target_name image)"
	check "it comes to its end" starts_again imgstreamctl stage
	check "the file system was checked first" said "the boot entry cannot be looked for: mounting ${disk}1"
	check "then shrunk" said "shrinking the source's file system from 254.00 MiB"
	check "the target can be started" state streaming
	check "the machine is cut before that is written" cut_after_the_last_boot_block
	power_cut
	;;
2)
	check "the module loads" load
	check "the machine comes up with the target" imgstreamctl boot --once
	check "as if nothing had been" state streaming
	check "its boot blocks are the target's" $guestdisk verify /dev/imgstream0 image --blocks 64
	check "it is detached" imgstreamctl detach
	check "the machine is cut there again" cut_after_the_last_boot_block
	dd if=/dev/zero of="$disk" bs=512 seek=61 count=1 conv=notrunc,fsync 2>/dev/null
	unload
	power_cut
	;;
3)
	check "with a torn boot block it starts again" starts_again imgstreamctl boot --once
	check "because the source is put back" said "the target's boot blocks are not complete: the source is put back"
	check "as it was after the shrink" said "the source is identical to what it was right after the shrink"
	check "without its boot entry" said "the boot entry on ${disk}1 is gone"
	check "every file of it is there" as_it_was
	refuse "and the superblocks are gone" imgstreamctl dump "$disk"
	;;
esac
finish
