#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What digests cost: the rate at which blocks that are not here are read from front to back, eight reads of a mebibyte under way,
# without digests and with both, from a target in the same machine, which computes them, too. Ratios are inside of one pass, and a
# disk is laid out anew for each rate.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/fio
# needs-memory: 2048
# needs-kernel: stock
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

passes=5

# rate POLICY DIGESTS: of 30 MiB, in KiB/s, with those digests.
rate() {
	lay_out_own "$(disk disk)" >/dev/null && $guestdisk digest "$(disk disk)" "$1" && load disk="$(disk disk)" || return
	imgstreamctl fill off
	eventually ready
	[ "$(value digests)" = "$2" ] || return
	read_rate 30
	unload
}

make_image

plan 1
serve /tmp/image --digests offer
# The first one is slow, whatever it measures.
rate off none >/dev/null
pass=0
while [ $((pass += 1)) -le $passes ]; do
	without=$(rate off none) with=$(rate require header+data)
	echo "$without $with" | awk '{ printf "# KiB/s: without digests %d, with both %d; ratio %.2f\n", $1, $2, $2 / $1 }'
done
check "every rate was measured" [ -n "$without" -a -n "$with" ]
stop_serving
finish
