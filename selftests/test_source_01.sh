#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A target that breaks the protocol, another image behind the portal, silence: nothing wrong is ever read, reads wait
# instead of failing, and the module can go at any time. The target runs inside of the virtual machine.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

connection() {
	case $(value connection) in $1) true ;; *) false ;; esac
}
refused() {
	connection "disconnected: wrong image*"
}

make_image
make_other_image

plan 18
serve /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
stop_serving

# Reads are counted from 0 on each connection; the first one is that of the identity check.
serve /tmp/image --fault 0:9:short=512 --fault 1:10:hole --fault 2:9:reset=70000
check "the module attaches the disk" load disk="$(disk disk)"
imgstreamctl fill off
check "a target that breaks the protocol is read all the same" \
	$guestdisk verify /dev/imgstream0 image --start 16 --blocks 4000
check "it took several connections" [ "$(value reconnects)" -ge 3 ]
equal "nobody saw an error" "0 none" "$(value errors_read) $(value last_error)"
echo 3 >/proc/sys/vm/drop_caches
check "what was kept is right" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 4000
stop_serving

serve /tmp/other
eventually refused
dd if=/dev/imgstream0 of=/tmp/read bs=4096 skip=6000 count=1 iflag=direct 2>/dev/null &
reader=$!
eventually waiting
check "another image is not read" refused
refuse "and its reader waits" ended $reader
equal "not even at the next attempt" 0 "$(stat -c %s /tmp/read 2>/dev/null || echo 0)"
check "what is here is read meanwhile" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 400
refuse "the module does not go under the reader" unload
stop_serving
serve /tmp/image
wait $reader
check "with the right image behind the portal the reader goes on" \
	cmp -n 4096 /tmp/read /tmp/image 0 $((6000 * 4096))
check "and all others" $guestdisk verify /dev/imgstream0 image --start 6000 --blocks 100

# Silence: packets vanish, nobody says that the target is gone.
ip link set lo down
imgstreamctl fill on
check "with a silent network the device is detached" imgstreamctl detach
ip link set lo up
check "and attached again" imgstreamctl attach "$(disk disk)"
refuse "with the control device open the module does not go" sh -c 'rmmod imgstream 8</dev/imgstream-control'
ip link set lo down
check "with a silent network the module goes" unload
ip link set lo up
stop_serving
check "the disk still knows what it has" $guestdisk verify "$(disk disk)" image --blocks 16
finish
