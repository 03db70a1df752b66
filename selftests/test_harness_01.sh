#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What the other tests stand on: disks with known contents, the iSCSI target that goes and comes back, a boot in between.
# needs-file: data 4M stamp harness
# needs-disk: data
# needs-file: image 1M stamp image
# needs-target: image
# needs-own-boot: boots twice
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

listens() {
	nc "${PORTAL%:*}" "${PORTAL#*:}" -e /bin/true
}
sum() {
	sha256sum "$(disk data)" | cut -d ' ' -f 1
}

plan 6
if [ "$BOOT" = 1 ]; then
	equal "a disk holds what its recipe wrote" "$SUM_data" "$(sum)"
	check "the target listens" listens
	target_stop
	refuse "a stopped target does not" listens
	target_start
	check "a started target listens again" listens
	echo overwritten | dd of="$(disk data)" conv=notrunc,fsync 2>/dev/null
	next_boot
fi
equal "a write is still there after the next boot" overwritten "$(head -n 1 "$(disk data)")"
printf 'harness %012d\n' 0 | dd of="$(disk data)" conv=notrunc,fsync 2>/dev/null
equal "and nothing else has changed" "$SUM_data" "$(sum)"
finish
