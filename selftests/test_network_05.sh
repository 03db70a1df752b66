#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A network that falls silent: a moment of it passes unnoticed, a long one ends the connection; so does another address of
# this machine. What is here is read meanwhile, what is not waits, and goes on by itself.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: veth sch_netem
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip /usr/sbin/tc
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

make_image

plan 19
attach_far
check "what is not here is read" local_reads

worsen loss 100%
read_later 2000
eventually waiting
check "when packets vanish what is here is read" local_reads
refuse "what is not waits" ended $reader
mend
wait $reader
check "and is read when they arrive again" read_right 2000
equal "over the same connection" 0 "$(value reconnects)"

ip link set near0 down
read_later 2500
eventually waiting
ip link set near0 up
wait $reader
check "the same with an interface that was down" read_right 2500
equal "over the same connection" 0 "$(value reconnects)"

worsen loss 100%
read_later 3000
may_wait 600
eventually connection_says "the target is silent"
check "when they vanish for longer that is said, and what is here is read" local_reads
refuse "what is not still waits" ended $reader
mend
wait $reader
check "and is read when they arrive again" read_right 3000
equal "over a new connection" 1 "$(value reconnects)"

ip addr del $near_address/24 dev near0
ip addr add 192.0.2.7/24 dev near0
read_later 4000
wait $reader
check "with another address of this machine it goes on as well" read_right 4000
check "from that address" grep -q "070200C0:.... 020200C0:0CBC 01" /proc/net/tcp
calm

check "the module goes" unload
stop_serving
check "and the network" network_away
finish
