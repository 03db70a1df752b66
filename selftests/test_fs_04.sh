#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# udev knows of the device and its partitions what it knows of a virtio disk with the same contents, by its own rules there
# and by ours here, and makes the same links, but for those that name the bus. The target runs inside of the virtual machine.
# needs-file: disk 192M
# needs-disk: disk
# needs-file: plain 33554432
# needs-disk: plain 512e
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget initramfs/udev/61-imgstream.rules
# needs-program: mke2fs mkswap sfdisk udevadm /usr/lib/systemd/systemd-udevd
# needs-program: /usr/lib/x86_64-linux-gnu/libblkid.so.1 /usr/lib/udev/rules.d/60-block.rules
# needs-program: /usr/lib/udev/rules.d/60-persistent-storage.rules /usr/lib/udev/rules.d/64-ext4.rules
# needs-own-boot: runs udev
# needs-kernel: stock debug-long
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

ours=/dev/imgstream0
plain=$(disk plain)
start_udev() {
	cp /installed/61-imgstream.rules /usr/lib/udev/rules.d/ && mkdir -p /run/udev /etc/udev || return
	/usr/lib/systemd/systemd-udevd --resolve-names=never >/tmp/udev.log 2>&1 &
	echo $! >/tmp/udev.pid
	eventually udevadm control --ping
	udevadm trigger --subsystem-match=block && udevadm settle
}
# known NUMBER DISK: what udev says of the disk (0) or a partition: what is in it, and links. Numbers that the kernel gives
# to disks as they come are not compared, nor links by bus, serial number and kind of driver.
known() {
	known_name=$2
	[ "$1" = 0 ] || known_name=$(partition_name "$1" "$2")
	{
		udevadm info --query=property --name="$known_name" | grep -E '^(ID_FS|ID_PART|UDISKS|SYSTEMD|PART)'
		udevadm info --query=symlink --name="$known_name" | tr ' ' '\n' | grep -vE '^disk/by-(id|path)/'
	} | sed -e 's/^\(ID_PART_ENTRY_DISK=\).*/\1/' -e 's/\(by-diskseq.\)[0-9]*/\1N/' | sort
}
same() {
	known "$1" "$plain" >/tmp/wanted
	known "$1" "$ours" >/tmp/got
	cat /tmp/wanted
	diff /tmp/wanted /tmp/got && [ "$(wc -l </tmp/wanted)" -ge "$2" ]
}

plan 10
check "a disk and an image are made" make_contents "$plain"
serve /tmp/image
check "the disk is laid out" lay_out_contents
check "udev runs" start_udev
check "the module attaches it" load disk="$(disk disk)"
eventually [ -b ${ours}p2 ]
udevadm settle
check "the disk is known" same 0 3
check "the file system is known" same 1 10
check "the swap area is known" same 2 10
imgstreamctl source-view on
udevadm settle
check "the view of the source is left alone" [ -z "$(udevadm info --query=symlink --name=${ours}-source)" ]
imgstreamctl source-view off
udevadm settle
check "the device goes" imgstreamctl detach
udevadm settle
check "the module goes" unload
kill "$(cat /tmp/udev.pid)"
eventually ended "$(cat /tmp/udev.pid)"
stop_serving
finish
