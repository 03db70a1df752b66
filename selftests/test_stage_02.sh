#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The whole stage, on a source whose shrink was cut so that no kernel mounts it: it is mended, shrunk and switched.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 256M cut-resize
# needs-disk: disk
# needs-module: ext4
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dumpe2fs e2fsck resize2fs unshare
# shellcheck source-path=SCRIPTDIR/guest
. /tests/common.sh

disk=$(disk disk)
mkdir -p /imgstream /tmp/mounted
# says COMMAND...: what it says goes to /tmp/said. In a process namespace of its own, which ends when the program starts
# the computer again.
says() {
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

plan 6
refuse "a file system whose resize2fs was cut is not mounted" read_only
check "the stage gets its payload" imgstream-guestdisk payload "$disk" /imgstream/payload \
	--portal "$PORTAL" --target "$(target_name image)"
check "it comes to its end" says imgstreamctl stage
check "the file system was checked first" said "the boot entry cannot be looked for: mounting ${disk}1"
check "then shrunk" said "shrinking the source's file system from 254.00 MiB"
check "the target can be started" state streaming
finish
