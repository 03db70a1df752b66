#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Digests with tgt: every byte of an image comes with header and data digests from a target that knows them, and without from one
# that does not; a disk that requires them is not served by that one.
# needs-file: image 33562624 lun
# needs-file: plain 33562624 lun
# needs-file: disk 192M
# needs-disk: disk
# needs-target: image digests
# needs-target: plain
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

refused() {
	case $(value connection) in "disconnected: login failed: HeaderDigest is required"*) true ;; *) false ;; esac
}
attached() {
	load disk="$(disk disk)" && imgstreamctl fill off
}

plan 12
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches the disk" attached
check "the whole image is read" $guestdisk verify /dev/imgstream0 image --blocks 8192
equal "by one connection" 0 "$(value reconnects)"
equal "with digests" header+data "$(value digests)"
check "the module goes" unload

check "a disk is laid out for a target without digests" \
	$guestdisk disk "$(disk disk)" --portal "$PORTAL" --target "$(target_name plain)"
check "which is attached" attached
check "and read" $guestdisk verify /dev/imgstream0 image --blocks 1024
equal "without digests" none "$(value digests)"
unload && $guestdisk digest "$(disk disk)" require && attached
check "where they are required it is refused" eventually refused
check "and the module goes" unload
finish
