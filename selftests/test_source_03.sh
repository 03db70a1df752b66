#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A repository that is gone: reads wait, the console says so at once and then once a minute, and when it is back they go on.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# needs-own-boot: reads all that the console was told
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

block=6000

# said: when, in seconds, and what the console was told.
said() {
	dmesg | sed -n 's/^\[ *\([0-9]*\)\.[0-9]*\] imgstream: \(no connection to the repository .*\)/\1 \2/p'
}
lines() {
	[ "$(said | wc -l)" -ge "$1" ]
}
when() {
	said | sed -n "$1s/ .*//p"
}
reader_waits() {
	[ "$(value inflight)" -gt 0 ]
}

make_image

plan 7
serve /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
stop_serving
check "it is attached without its repository" load disk="$(disk disk)"
dd if=/dev/imgstream0 of=/tmp/read bs=4096 skip=$block count=1 iflag=direct 2>/dev/null &
reader=$!
eventually reader_waits
eventually lines 2
check "the console is told why, and what waits" sh -c \
	"echo '$(said | sed -n 2p)' | grep -q '$own_portal for [0-9]* s: connection refused; reads waiting: 1$'"
check "once a minute, not more often" [ $(($(when 2) - $(when 1))) -ge 59 ]
refuse "the reader still waits" ended $reader
serve /tmp/image
wait $reader
check "it goes on by itself" cmp -n 4096 /tmp/read /tmp/image 0 $((block * 4096))
check "the module goes" unload
stop_serving
finish
