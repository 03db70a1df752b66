#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Runs inside a VM of the stock kernel, with imgstream.ko built with IMGSTREAM_BENCH=1, fio, and a disk of 512 MiB as
# /dev/vda. One line a measurement: device;work;I/O operations per second. Passes are interleaved, so that ratios
# inside of one pass mean something.
insmod /imgstream.ko disk=/dev/vda || exit 1
[ -b /dev/imgbench-bio ] && [ -b /dev/imgbench-mq ] || exit 1

# run DEVICE "WORK BLOCK-SIZE DEPTH"
run() {
	# The words of a work are several arguments.
	# shellcheck disable=SC2086
	set -- "$1" $2
	fio --name=x --filename="$1" --direct=1 --ioengine=libaio --rw="$2" --bs="$3" --iodepth="$4" --runtime=3 \
		--time_based --size=400m --randrepeat=0 --output-format=terse --terse-version=3 |
		awk -F\; -v device="$1" -v work="$2 $3 $4" '{ print "R;" device ";" work ";" ($8 + $49) }'
}

for _ in 1 2 3; do
	for work in "read 1M 8" "randread 4k 1" "randread 4k 32" "randwrite 4k 32"; do
		for device in /dev/vda /dev/imgbench-bio /dev/imgbench-mq; do
			run "$device" "$work"
		done
	done
done
rmmod imgstream && echo RMMOD OK
