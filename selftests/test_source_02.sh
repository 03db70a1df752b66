#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Demand first: who waits for a block is not made to wait for the fill, also if the fill has asked for that block already.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# The fill has four reads of a mebibyte each under way or queued, from the first absent block on; two of them are sent.
fetches=4
asked=1000

fill_waits() {
	[ "$(value fetches_inflight)" -ge "$fetches" ]
}

make_image

plan 5
serve /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
stop_serving
# Without a repository: else the fill may fetch what is to be read before it is off.
check "the module attaches the disk" load disk="$(disk disk)"
imgstreamctl fill off

# Reads are counted from 0 on each connection; the first one is that of the identity check.
serve /tmp/image --fault 0:1:stall --fault 0:2:stall
eventually ready
imgstreamctl fill on
eventually fill_waits
dd if=/dev/imgstream0 of=/tmp/read bs=4096 skip=$asked count=1 iflag=direct 2>/dev/null
check "what is read is right" cmp -n 4096 /tmp/read /tmp/image 0 $((asked * 4096))
equal "it was sent before what the fill still had queued" 0 "$(value reconnects)"
check "the module goes" unload
stop_serving
finish
