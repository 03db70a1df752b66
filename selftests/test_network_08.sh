#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A target that sends a byte a second: it is alive, and of no use. What is here is read meanwhile, the connection is ended and
# that is said, and so is the next one, whose login comes that slowly; what is not here is read over the third.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: veth
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip
# needs-long: it waits for two time limits of the protocol
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

# said TEXT: the kernel's log has it.
said() {
	dmesg | grep -q "$1"
}

make_image

plan 11
attach_far
check "what is not here is read" local_reads
stop_serving

# Data PDUs are counted on each connection: the check of the unit has four.
serve_far /tmp/image --fault 0:data-in/4:drip=1000 --fault 1:login/0:drip=10
eventually ready
dmesg -c >/dev/null
read_later 2000
eventually waiting
check "when it comes a byte a second what is here is read" local_reads
may_wait 600
eventually said "the target does not answer reads; reads waiting: 1"
check "the connection is ended, which is said, and what is here is read" local_reads
wait "$reader"
check "what is not is read over another connection" read_right 2000
equal "two have been lost" 2 "$(value reconnects)"
calm

check "the module goes" unload
stop_serving
check "and the network" network_away
finish
