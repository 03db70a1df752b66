#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A bad wire: packets are late, lost, repeated, out of order, damaged, and somebody in between ends connections. Everything
# is read, slowly, and rightly, and no connection is taken for dead that is not.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: veth sch_netem nf_tables nft_reject_inet
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip /usr/sbin/tc
# needs-program: /usr/sbin/nft
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

# tcp NAME: a counter of the kernel's TCP.
tcp() {
	awk -v name="$1" '/^Tcp:/ { if (!column) { for (i = 2; i <= NF; i++) if ($i == name) column = i } else print $column }' \
		/proc/net/snmp
}
# part FIRST: so many blocks, which are not here yet, are right.
part() {
	$guestdisk verify /dev/imgstream0 image --start "$1" --blocks 300
}

make_image

plan 14
attach_far

resent=$(tcp RetransSegs)
check "packets are late, lost, repeated and out of order" worsen delay 40ms 10ms loss 2% duplicate 2% reorder 10%
check "what is read is right" part 1000
check "packets were lost" [ "$(tcp RetransSegs)" -gt "$resent" ]
damaged=$(tcp InCsumErrors)
check "packets are damaged" worsen corrupt 5%
check "what is read is right" part 2000
check "packets were damaged" [ "$(tcp InCsumErrors)" -gt "$damaged" ]
equal "all of it over one connection" 0 "$(value reconnects)"
mend

# A firewall that has forgotten the connection.
nft -f - <<'END'
table inet faults {
	chain out { type filter hook output priority 0; tcp dport 3260 reject with tcp reset; }
}
END
read_later 4000
eventually gone
refuse "while somebody resets every connection a reader waits" ended $reader
nft delete table inet faults
wait $reader
check "and goes on afterwards" read_right 4000
calm

check "the module goes" unload
stop_serving
network_away
finish
