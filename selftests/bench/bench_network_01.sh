#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What parallel sessions bring: the rate at which blocks that are not here are read from front to back, with eight reads of a
# mebibyte under way, over one, two and four sessions; over a plain link, a long one, and a long one that loses packets. Ratios
# are inside of one pass, and a disk is laid out anew for each number.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: veth sch_netem
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip /usr/sbin/tc /usr/bin/fio
# needs-memory: 2048
# needs-kernel: stock
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh
# shellcheck source=selftests/guest/sessions.sh
. /tests/sessions.sh

passes=${LONG:+5} passes=${passes:-3}

# rate SESSIONS MIB: of so many MiB, in KiB/s.
rate() {
	lay_out_far "$(disk disk)" >/dev/null && load disk="$(disk disk)" sessions="$1" || return
	imgstreamctl fill off
	eventually sessions_are "$1 of $1"
	read_rate "$2"
	unload
}

# measure NAME MIB: over the link as it is.
measure() {
	one=$(rate 1 "$2") two=$(rate 2 "$2") four=$(rate 4 "$2")
	echo "$1 $one $two $four" | awk '{
		printf "# %s, KiB/s: one session %d, two %d, four %d; to one session: two %.2f, four %.2f\n",
			$1, $2, $3, $4, $3 / $2, $4 / $2 }'
}

make_image

plan 3
check "there is a network" network
serve_far /tmp/image
# The first one is slow, whatever it measures.
rate 1 24 >/dev/null
pass=0
while [ $((pass += 1)) -le "$passes" ]; do
	measure plain 24
	worsen delay 20ms limit 100000
	measure long 16
	worsen delay 20ms loss 1% limit 100000
	measure long-and-lossy 6
	mend
done
check "every rate was measured" [ -n "$four" ]
stop_serving
check "the network goes" network_away
finish
