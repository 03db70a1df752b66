#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Another computer with the same initiator name: LIO ends the session of the one when the other logs in. We slow down, say
# what is wrong, lose nothing, and go on when the other one is gone.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# needs-module: target_core_mod target_core_file iscsi_target_mod
# needs-kernel: stock
# needs-own-boot: LIO stays in the kernel
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/lio.sh
. /tests/lio.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

# The other computer: it logs in under our name, looks at the unit, and goes, whenever we have a connection.
rival() {
	while [ ! -e /tmp/enough ]; do
		eventually ready_or_enough
		lay_out_own /tmp/rival >/tmp/rival.said 2>&1
		echo once more >>/tmp/logins
	done
}
ready_or_enough() {
	ready || [ -e /tmp/enough ]
}

make_image
truncate -s 192M /tmp/rival

plan 10
check "LIO serves the image" lio_start /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
check "what is not here is read" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 500
rival &
other=$!
eventually connection_says "another computer may have this initiator name"
pass "somebody else with our name is noticed and named"
check "what is here is read meanwhile" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 500
touch /tmp/enough
read_later 3000
wait $reader
check "when it is gone what is not here is read" read_right 3000
calm
wait $other
check "the module goes" unload
check "and so does LIO" lio_stop
finish
