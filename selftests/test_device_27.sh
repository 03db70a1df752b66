#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# What iostat shows: every read, write and discard is counted once, in sectors, for the disk that it was sent to, whether it
# came from the disk below, from the repository, or from nowhere as it is zeroes.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl /usr/bin/dd
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# counted: sectors read, written and discarded so far (Documentation/block/stat.rst of the kernel).
counted() {
	awk '{ print $3, $7, $14 }' /sys/block/imgstream0/stat
}
# counts "WHAT" "READ WRITTEN DISCARDED" COMMAND...: by so many sectors they grow.
counts() {
	what=$1 expected=$2 before=$(counted)
	shift 2
	"$@"
	equal "$what" "$expected" "$(echo "$before $(counted)" | awk '{ print $4 - $1, $5 - $2, $6 - $3 }')"
}
reads() {
	(be_reader "$@")
}
# writes BLOCK BYTES COUNT [FLAGS]: so many pieces from that block on.
writes() {
	/usr/bin/dd if=/dev/zero of=/dev/imgstream0 bs="$2" seek=$(($1 * 4096)) count="$3" oflag="seek_bytes,direct${4:-}" \
		conv=notrunc status=none
}
discards() {
	blkdiscard -o $(($1 * 4096)) -l $(($2 * 4096)) /dev/imgstream0
}

plan 13
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
eventually idle
counts "what comes from the repository is counted" "80 0 0" reads 5000 10
counts "what is here is" "80 0 0" reads 5000 10
counts "whole blocks that are written" "0 80 0" writes 5100 40960 1
counts "a part of one, which is merged with what the repository has" "0 1 0" writes 5200 512 1
counts "durable writes" "0 80 0" writes 5300 4096 10 ,dsync
counts "discards of blocks, for which nothing is done on the disk" "0 0 80" discards 5300 10
counts "zeroes that are read" "80 0 0" reads 5300 10
counts "a part of a block of zeroes that is written" "0 1 0" writes 5301 512 1
echo 0 >/sys/block/imgstream0/queue/iostats
counts "nothing is counted where nothing is to be" "0 0 0" reads 5400 10
echo 1 >/sys/block/imgstream0/queue/iostats
equal "nothing is under way" 0 "$(awk '{ print $9 }' /sys/block/imgstream0/stat)"
check "the module goes" unload
finish
