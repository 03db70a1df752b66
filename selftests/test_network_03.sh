#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Digests: bits that change on the way are noticed, and nothing of such data is kept. Without digests nobody notices, which is
# said; and where they are required, no image without them is read. The target runs inside of the virtual machine.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

UNPROTECTED="data travels unprotected"
# The identity check of a connection gets four data PDUs: the inquiry, page 0x83, the capacity, the trailer. The ones behind
# them are damaged in their data, their header, their data again, and their digest.
damage() {
	serve /tmp/image "$@" --fault 0:9:flip=3000 --fault 1:9:flip=20 --fault 2:12:flip=100 --fault 3:4:flip=49
}
# warnings: how often the kernel has said it since the module was loaded.
warnings() {
	dmesg | sed -n "$((seen + 1)),\$p" | grep -c "$UNPROTECTED"
}
says() {
	imgstreamctl status | grep -q "^digests  *$1$"
}
refused() {
	case $(value connection) in "disconnected: login failed: HeaderDigest is required"*) true ;; *) false ;; esac
}

make_image
plan 19
serve /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
stop_serving
seen=$(dmesg | wc -l)

damage --digests offer
check "the module attaches the disk" load disk="$(disk disk)"
imgstreamctl fill off
check "what is damaged on the way is read rightly all the same" \
	$guestdisk verify /dev/imgstream0 image --start 16 --blocks 2000
equal "every damage ended a connection" 4 "$(value reconnects)"
equal "headers and data are protected" header+data "$(value digests)"
check "which status says" says header+data
equal "nobody saw an error" "0 none" "$(value errors_read) $(value last_error)"
equal "nothing was said about unprotected data" 0 "$(warnings)"
echo 3 >/proc/sys/vm/drop_caches
check "what was kept is right" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 2000
stop_serving

# The same without digests: the first damage is in the data of a read.
damage --digests never
eventually ready
equal "nothing is protected" none "$(value digests)"
equal "that is said once" 1 "$(warnings)"
check "status says it, too" says "none: $UNPROTECTED.*"
refuse "what is damaged then is not noticed" $guestdisk verify /dev/imgstream0 image --start 2016 --blocks 2000
check "and the module goes" unload
stop_serving

$guestdisk digest "$(disk disk)" require
serve /tmp/image --digests never
check "a disk that requires digests is attached" load disk="$(disk disk)"
eventually refused
dd if=/dev/imgstream0 of=/tmp/read bs=4096 skip=6000 count=1 iflag=direct 2>/dev/null &
reader=$!
eventually waiting
check "an image without them is not read" refused
stop_serving
serve /tmp/image --digests require
wait $reader
check "with digests the reader goes on" cmp -n 4096 /tmp/read /tmp/image 0 $((6000 * 4096))
equal "and is protected" header+data "$(value digests)"
check "the module goes" unload
stop_serving
finish
