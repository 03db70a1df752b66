#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The kernel crashes while blocks are fetched and written, and one of kdump takes over: the disk is not attached in it, not by
# hand either, nothing is written to it, and the computer starts again by itself. Then it ends in a triple fault. What was
# flushed is there each time.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget fio /usr/sbin/kexec
# needs-kernel-image: it takes over
# needs-kernel: stock
# needs-cmdline: crashkernel=320M reboot=triple
# needs-fault: Kernel panic
# needs-own-boot: the kernel of kdump needs memory that is set aside, and it boots three times
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
# The initramfs of the kernel of kdump: this one, with the test as far as it is then. The loading itself is one more result.
crash_initramfs() {
	sed -i "s/^BOOT=.*/BOOT=crash/; s/^ktap_number=.*/ktap_number=$((ktap_number + 1))/; s/^ktap_failed=.*/ktap_failed=$ktap_failed/" \
		"/tests/$TEST.env"
	(cd / && find . -xdev ! -path './boot/*' | cpio -o -H newc)
}
load_crash_kernel() {
	crash_initramfs >/tmp/crash.img &&
		kexec --load-panic --kexec-file-syscall --initrd=/tmp/crash.img \
			--command-line="$(sed 's/crashkernel=[^ ]*//' /proc/cmdline) nr_cpus=1 reset_devices" /boot/vmlinuz &&
		rm /tmp/crash.img
}
flushed() {
	$guestdisk stamp /dev/imgstream0 "$1" --start "$2" --blocks 200 && sync /dev/imgstream0
}
there() {
	$guestdisk verify /dev/imgstream0 "$1" --start "$2" --blocks 200
}

plan 14
case $BOOT in
1)
	make_image
	serve /tmp/image
	check "a disk is laid out" lay_out_own "$disk"
	add_settings "$disk"
	check "the module attaches it" load disk="$disk"
	check "blocks are written and flushed" flushed one 1000
	check "a kernel of kdump is loaded" load_crash_kernel
	work_hard 16 8
	sysrq c
	sleep 60
	bail "the kernel did not crash"
	;;
crash)
	check "the kernel of kdump has taken over" [ -e /proc/vmcore ]
	before=$(md5sum <"$disk")
	refuse "no disk is attached with it" load disk="$disk"
	check "and it says why" sh -c "dmesg | grep 'is not attached: this kernel saves the dump'"
	load
	check "nor by hand" says "this kernel saves the dump" imgstreamctl attach "$disk"
	rmmod imgstream
	equal "the disk is as it was" "$before" "$(md5sum <"$disk")"
	# What the initramfs of the target does.
	next_boot imgstreamctl boot
	fail "the computer starts again"
	exit
	;;
2)
	check "at the next start the disk is attached" load disk="$disk"
	check "what was flushed is there" there one 1000
	check "and more is written and flushed" flushed two 1400
	next_boot
	;;
esac
check "after a triple fault the disk is attached" load disk="$disk"
both_there() {
	there one 1000 && there two 1400
}
check "and all that was flushed is there" both_there
unload
finish
