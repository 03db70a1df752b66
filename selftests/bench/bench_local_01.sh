#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What a target that is gone costs those who read what is here: latency of random reads of 4 KiB, one at a time, from the disk
# itself; with the target there; with it gone; with it gone while eight readers wait for it. Ratios are inside of one pass.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: veth
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip /usr/bin/fio
# needs-memory: 2048
# needs-kernel: stock
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

here_blocks=4096 passes=5

# latency DEVICE: median and 99th percentile, in microseconds.
latency() {
	fio --name=x --filename="$1" --readonly --direct=1 --ioengine=psync --rw=randread --bs=4k --size=$((here_blocks * 4))k \
		--runtime=3 --time_based --randrepeat=0 --output-format=terse --terse-version=3 |
		awk -F\; '{
			for (i = 18; i < 38; i++)
				if (split($i, part, "%=") == 2)
					at[part[1] + 0] = part[2]
			print at[50], at[99]
		}'
}

# ratio OF TO: of the two medians.
ratio() {
	echo "$1 $2" | awk '{ printf "%.2f", $1 / $3 }'
}

# eight_wait: for blocks that are not here.
eight_wait() {
	readers=
	for reader in 1 2 3 4 5 6 7 8; do
		$guestdisk verify /dev/imgstream0 image --start $((here_blocks + pass * 100 + reader)) --blocks 1 >/dev/null &
		readers="$readers $!"
	done
	eventually waiting
}

measure() {
	disk=$(latency "$(disk disk)")
	there=$(latency /dev/imgstream0)
	stop_serving
	eventually gone
	away=$(latency /dev/imgstream0)
	eight_wait
	wanted=$(latency /dev/imgstream0)
	serve_far /tmp/image
	imgstreamctl reconnect
	# shellcheck disable=SC2086
	wait $readers
	echo "# microseconds, median and 99 %: disk $disk, there $there, gone $away, waited for $wanted"
	echo "# ratios of the medians: there/disk $(ratio "$there" "$disk"), gone/there $(ratio "$away" "$there")," \
		"waited for/there $(ratio "$wanted" "$there")"
}

make_image

plan 6
attach_far
check "a part of it comes here" $guestdisk verify /dev/imgstream0 image --blocks $here_blocks
pass=0
while [ $((pass += 1)) -le $passes ]; do
	measure
done
calm
check "the module goes" unload
stop_serving
network_away
finish
