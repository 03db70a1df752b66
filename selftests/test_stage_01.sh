#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The end of a roll back on a real disk: the stage's boot entry is taken out of a file system of the source before the
# superblocks go, and both while nothing else holds the disk.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: ext4
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget mkfs.ext4
# shellcheck source-path=SCRIPTDIR/guest
. /tests/common.sh

disk=$(disk disk)
# An entry as it stands in a file that imgstream made.
mkdir -p /tmp/source/boot/grub /tmp/mounted
cat >/tmp/source/boot/grub/custom.cfg <<'EOF'
### BEGIN imgstream stage (file made by imgstream) ###
set default=imgstream-stage
### END imgstream stage ###
EOF
# The source: an MBR with one ext4 partition of 16 MiB from 1 MiB on. Its block 0 is saved at R.
lay_out() {
	truncate -s 33562624 /tmp/image
	imgstream-guestdisk lun /tmp/image
	serve /tmp/image
	places=$(imgstream-guestdisk disk "$disk" --portal "$own_portal" --target "$own_target") || return
	stop_serving
	relocated=$(echo "$places" | sed 's/.* R \([0-9]*\) .*/\1/')
	dd if=/dev/zero of=/tmp/block0 bs=4096 count=1 2>/dev/null
	printf '\203\0\0\0\0\010\0\0\0\200\0\0' | dd of=/tmp/block0 bs=1 seek=450 conv=notrunc 2>/dev/null
	printf '\125\252' | dd of=/tmp/block0 bs=1 seek=510 conv=notrunc 2>/dev/null
	dd if=/tmp/block0 of="$disk" bs=4096 seek=$((relocated / 4096)) conv=notrunc 2>/dev/null
	truncate -s 16M /tmp/fs
	mkfs.ext4 -q -d /tmp/source /tmp/fs && dd if=/tmp/fs of="$disk" bs=1M seek=1 conv=notrunc 2>/dev/null && sync
}
entry_gone() {
	mount -t ext4 -o ro "${disk}1" /tmp/mounted || return
	[ -d /tmp/mounted/boot/grub ] && [ ! -e /tmp/mounted/boot/grub/custom.cfg ]
	gone=$?
	umount /tmp/mounted
	return $gone
}
says_on() {
	imgstreamctl rollback "$disk" --yes --now >/tmp/said 2>&1 && cat /tmp/said && grep -q "$1" /tmp/said
}

plan 5
check "a disk is laid out" lay_out
check "a roll back ends" says_on "the boot entry on ${disk}1 is gone"
check "the entry is gone" entry_gone
refuse "and so are the superblocks" imgstreamctl dump "$disk"
check "the source is back" cmp -n 4096 "$disk" /tmp/block0
finish
