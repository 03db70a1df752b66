# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# What the kernel says when file systems on the device are made, used and checked, and all is well.

# quiet: since `dmesg -c` the kernel has said nothing else.
quiet() {
	ordinary >/tmp/ordinary
	! dmesg | sed 's/^\[[^]]*\] *//' | grep -vxE -f /tmp/ordinary
}

# Whole lines. Each file system with the device, a loop device on it, and a plain disk.
ordinary() {
	ordinary_device='(imgstream0p|vd[a-z]|loop)[0-9]+'
	ordinary_uuid='[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'
	cat <<-END
		imgstream: connected to the repository at [0-9.:]+ after [0-9]+ s
		imgstream: repository at [0-9.:]+: data travels unprotected; a byte that changes on the way may not be noticed
		imgstream: everything is here: independent of the repository
		imgstream: committed: every block is at home
		(imgstream0(-source)?|vd[a-z]):( (imgstream0p|vd[a-z])?[0-9]+| p[0-9]+)*
		[^ ]+ \([0-9]+\): drop_caches: 3
		loop[0-9]+: detected capacity change from [0-9]+ to [0-9]+
		EXT4-fs \($ordinary_device\): mounted filesystem $ordinary_uuid (r/w|ro) with ordered data mode\. Quota mode: (none|disabled)\.
		EXT4-fs \($ordinary_device\): unmounting filesystem $ordinary_uuid\.
		XFS \($ordinary_device\): Mounting V5 Filesystem $ordinary_uuid
		XFS \($ordinary_device\): Ending clean mount
		XFS \($ordinary_device\): Unmounting Filesystem $ordinary_uuid
		BTRFS: device fsid $ordinary_uuid devid 1 transid [0-9]+ /dev/$ordinary_device \([0-9]+:[0-9]+\) scanned by mount \([0-9]+\)
		BTRFS info \(device $ordinary_device\): (first mount|last unmount) of filesystem $ordinary_uuid
		BTRFS info \(device $ordinary_device\): using crc32c checksum algorithm
		BTRFS info \(device $ordinary_device\): turning on async discard
		BTRFS info \(device $ordinary_device\): enabling free space tree
		BTRFS info \(device $ordinary_device\): deleted orphan free space tree entries
		BTRFS info \(device $ordinary_device\): checking UUID tree
	END
}
