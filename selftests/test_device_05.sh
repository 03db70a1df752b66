#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The view of the source, and what may not happen while it is open or after there is no way back.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source-path=SCRIPTDIR/guest
. /tests/common.sh

status=/sys/block/imgstream0/imgstream
guestdisk=imgstream-guestdisk
committed() {
	[ "$(cat $status/commit)" = done ]
}

plan 9
check "a disk is laid out" $guestdisk disk "$(disk disk)" --portal "$PORTAL" --target "$(target_name image)"
check "the module attaches it" load disk="$(disk disk)"
refuse "there is no roll back of what is not there" $guestdisk verify /dev/imgstream0-source source
check "a commit begins" imgstreamctl commit --yes --now
eventually committed
refuse "a roll back is refused then" imgstreamctl rollback --yes
check "the device goes" imgstreamctl detach
refuse "and is not attached again" imgstreamctl attach "$(disk disk)"
check "the disk is the image" $guestdisk verify "$(disk disk)" image --blocks 8192
check "the module goes" unload
finish
