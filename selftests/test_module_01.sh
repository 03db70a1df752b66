#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The module loads into the stock kernel and unloads, again and again, and leaves nothing behind.
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

plan 7
check "loads" load
check "is listed" grep -q '^imgstream ' /proc/modules
refuse "does not load twice" load
check "unloads" unload
refuse "is gone" grep -q '^imgstream ' /proc/modules
again() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		load && unload || return
	done
}
check "loads and unloads ten times" again
refuse "leaves no device" ls -d /dev/imgstream* /sys/block/imgstream*
finish
