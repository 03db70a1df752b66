#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# LIO, the kernel's own target, in the machine itself: attached and read, pinged by it, restarted, its unit taken away and
# exchanged with and without an end of the session, standby and back. Reads wait, nothing wrong is read, and everything goes on by itself.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl /usr/sbin/nft
# needs-module: target_core_mod target_core_file iscsi_target_mod nf_tables
# needs-own-boot: LIO stays in the kernel
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/lio.sh
. /tests/lio.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

make_image
make_other_image

cp /tmp/image /tmp/longer
truncate -s 34611200 /tmp/longer

plan 24
check "LIO serves the image" lio_start /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
check "all of a part is read, and right" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 2000
equal "over one connection, without an error" "0 0" "$(value reconnects) $(value errors_read)"
equal "with digests, which LIO offers" header+data "$(value digests)"

# Pings of the target, which are NOP-In with a tag: as it answers them, LIO has no reason to end the connection.
nft -f - <<'END'
table inet seen {
	counter pings { }
	counter answers { }
	chain in { type filter hook input priority 0; tcp sport 3260 @ih,0,8 0x20 counter name pings; }
	chain out { type filter hook output priority 0; tcp dport 3260 @ih,0,8 0x40 counter name answers; }
}
END
counted() {
	nft list counter inet seen "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p'
}
pinged() {
	[ "$(counted pings)" -ge 3 ]
}
echo 3 >"$lio_acl/attrib/nopin_response_timeout"
echo 3 >"$lio_acl/attrib/nopin_timeout"
eventually pinged
check "the pings of LIO are answered" [ "$(counted answers)" -ge 2 ]
equal "and it keeps the connection" "ready 0" "$(value connection) $(value reconnects)"
nft delete table inet seen

lio_enabled 0
eventually gone
read_later 3000
eventually waiting
check "without its portals what is here is read" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 2000
refuse "what is not waits" ended $reader
lio_enabled 1
wait $reader
check "and is read when they are back" read_right 3000

check "the unit goes into standby" lio_state 2
read_later 4000
eventually waiting
eventually connection_says "not ready"
check "and back" lio_state 0
wait $reader
check "what waited for it is read" read_right 4000

lio_enabled 0
lio_hide
lio_unit 1 /tmp/other
lio_show 1
lio_enabled 1
read_later 5000
eventually connection_says "wrong image"
refuse "another file behind the same unit is not read" ended $reader
lio_enabled 0
lio_hide
lio_unit 2 /tmp/longer
lio_show 2
lio_enabled 1
imgstreamctl reconnect
eventually connection_says "it has 34611200 bytes instead of 33562624"
refuse "neither is one of another size" ended $reader
lio_enabled 0
lio_hide
lio_show 0
lio_enabled 1
check "it is looked for at once" imgstreamctl reconnect
wait $reader
check "with the right one back the reader goes on" read_right 5000
calm

# Below a session that lasts LIO exchanges it without a word: it reports a change (6/3F/0E) to all units but the new one.
# What is read until that is noticed is of the other image; nobody looks at those blocks again.
dmesg_has() {
	dmesg | grep -q "$1"
}
keep_reading() {
	block=6000
	while [ ! -e /tmp/enough ]; do
		dd if=/dev/imgstream0 of=/dev/null bs=4096 skip=$block count=1 iflag=direct 2>/dev/null || return
		block=$((block + 1))
		sleep 0.1
	done
}
# The check after the last read is over: nothing is asked while there is no unit.
sleep 12
lio_hide
lio_show 1
keep_reading &
keeper=$!
eventually connection_says "wrong image"
check "another file below a running session is noticed" dmesg_has "since [0-9]* s ago or less: .*roll back"
touch /tmp/enough
lio_hide
lio_show 0
imgstreamctl reconnect
wait $keeper
equal "with the right one back who reads goes on" 0 $?
check "and what is read is right" $guestdisk verify /dev/imgstream0 image --start 7500 --blocks 100

check "the module goes" unload
check "and so does LIO" lio_stop
finish
