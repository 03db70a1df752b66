#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The end of a roll back on a real disk: the stage's boot entry is taken out of a file system of the source before the
# superblocks go, and both while nothing else holds the disk. And what happens while somebody has a partition open that
# the kernel knows from the target's table.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: ext4
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget mkfs.ext4 flock
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
# An entry as it stands in a file that imgstream made.
mkdir -p /tmp/source/boot/grub /tmp/mounted
cat >/tmp/source/boot/grub/custom.cfg <<'EOT'
### BEGIN imgstream stage (file made by imgstream) ###
set default=imgstream-stage
### END imgstream stage ###
EOT
# block_0 MIB: an MBR with one partition of 16 MiB that begins there.
block_0() {
	{
		dd if=/dev/zero bs=446 count=1
		mbr $(($1 * 2048)) $((16 * 2048))
		dd if=/dev/zero bs=512 count=7
	} 2>/dev/null
}
# lay_out_both BLOCKS MIB: the source has an ext4 partition from 1 MiB on, the target one from MIB on, which the kernel
# knows. So many blocks of the source are saved at R, and the target's stand in their place.
lay_out_both() {
	serve /tmp/image
	places=$(lay_out_own "$disk" --boot-blocks "$1") || return
	stop_serving
	relocated=$(place R "$places")
	dd if=/tmp/whole of="$disk" bs=4096 count="$1" seek=$((relocated / 4096)) conv=notrunc 2>/dev/null
	dd if=/tmp/whole of="$disk" bs=4096 skip="$1" seek="$1" conv=notrunc 2>/dev/null
	block_0 "$2" | dd of="$disk" bs=4096 conv=notrunc 2>/dev/null
	sync && blockdev --rereadpt "$disk" && [ -e "${disk}1" ]
}
entry() {
	mount -t ext4 -o ro "${disk}1" /tmp/mounted || return
	if [ -e /tmp/mounted/boot/grub/custom.cfg ]; then
		echo there
	elif [ -d /tmp/mounted/boot/grub ]; then
		echo gone
	fi
	umount /tmp/mounted
}
says_on() {
	imgstreamctl rollback "$disk" --yes --now >/tmp/said 2>&1 && cat /tmp/said && grep -q "$1" /tmp/said
}
# hold COMMAND: somebody reads the partition, and has it open until COMMAND ends.
hold() {
	rm -f /tmp/held
	(exec 9<"${disk}1" && dd bs=64k count=1 <&9 >/dev/null && touch /tmp/held && eval "$1") 2>/dev/null &
	holder=$!
	eventually [ -e /tmp/held ]
}
let_go() {
	kill -9 "$holder" 2>/dev/null
	wait "$holder" 2>/dev/null
}
has_waiter() {
	grep -q -e '->' /proc/locks
}

plan 14
make_image
truncate -s 16M /tmp/fs
mkfs.ext4 -q -d /tmp/source /tmp/fs
truncate -s 1M /tmp/whole
block_0 1 | dd of=/tmp/whole conv=notrunc 2>/dev/null
cat /tmp/fs >>/tmp/whole

check "a disk is laid out" lay_out_both 16 2
check "a roll back ends" says_on "the boot entry on ${disk}1 is gone"
equal "the entry is gone" gone "$(entry)"
refuse "and so are the superblocks" imgstreamctl dump "$disk"
check "the source is back" cmp -n 65536 "$disk" /tmp/whole

check "again, and somebody looks at the old partition as udev does, with the disk's lock" lay_out_both 16 2
exec 8<"$disk"
flock -s 8
hold "until has_waiter; do sleep 0.1; done; exec 9<&-; flock -u 8"
check "he is waited for" says_on "the boot entry on ${disk}1 is gone"
exec 8<&-
let_go

check "again, and somebody has the old partition open for good" lay_out_both 16 2
hold "exec sleep 100000"
check "that is said" says_on "the rest is left to the source: $disk is in use: a program has a partition of it open"
let_go
check "and the superblocks say where it ended" sh -c "imgstreamctl dump $disk | grep -q rolled-back"
blockdev --rereadpt "$disk"
equal "the entry stands" there "$(entry)"

check "again, with the same table in both, and the target's blocks where the file system begins" lay_out_both 300 1
hold "exec sleep 100000"
check "who has that partition open does not matter" says_on "the boot entry on ${disk}1 is gone"
let_go
equal "the entry is gone" gone "$(entry)"
finish
