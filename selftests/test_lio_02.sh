#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# LIO in a machine of its own, set up by targetcli: everything is fetched through two network cards, while it closes its
# portals, loses its power and comes back; then with CHAP.
# needs-file: image 33562624 lun
# needs-file: disk 192M
# needs-disk: disk
# needs-peer: lio image
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/chap.sh
. /tests/chap.sh

read_later() {
	(into=/tmp/read be_reader "$1") &
	reader=$!
}
# read_right: what was read is the block of that number.
read_right() {
	$guestdisk verify /dev/imgstream0 image --start "$1" --blocks 1
}

# lay_out_absent: a disk of which all is at the target.
lay_out_absent() {
	$guestdisk disk "$(disk disk)" --portal 192.0.2.2:3260 --target "$own_target"
}

plan 21
ip link set eth1 up
ip addr add 192.0.2.1/24 dev eth1
check "a disk is laid out" lay_out_absent
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
check "what is not here is read" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 500
equal "over one connection" 0 "$(value reconnects)"

check "LIO closes its portals" host peer off
eventually gone
read_later 2000
eventually waiting
refuse "who reads what is not here waits" ended $reader
check "it opens them" host peer on
wait $reader
check "and it is read" read_right 2000

may_wait 600
host peer cut
read_later 3000
eventually gone
check "without its power, what is here is read" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 500
refuse "what is not waits" ended $reader
check "the machine starts again" host peer start
wait $reader
check "and it is read" read_right 3000
may_wait 120

imgstreamctl fill on
eventually independent
check "all of it is right" $guestdisk verify /dev/imgstream0 image --start 16
equal "no reader has seen an error" "0 none" "$(value errors_read) $(value last_error)"
check "the module goes" unload

check "another disk is laid out" lay_out_absent
check "LIO wants CHAP from now on" host peer chap $user $secret $target_user $target_secret
prove_both 2000
finish
