#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The way of a disk: attach, read what is absent, fill, independence, detach, attach again without a target.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

plan 21
check "a disk is laid out" lay_out "$(disk disk)"
check "the module attaches it" load disk="$(disk disk)"
check "the fill can be switched off" imgstreamctl fill off
check "boot blocks are read from home" $guestdisk verify /dev/imgstream0 image --blocks 16
before=$(value fetched_bytes)
check "absent blocks are read" $guestdisk verify /dev/imgstream0 image --start 2000 --blocks 600
check "blocks next to the end are read" $guestdisk verify /dev/imgstream0 image --start 8100
stored=$(value stored_bytes)
check "they are kept" [ "$stored" -gt "$before" ]
fetched=$(value fetched_bytes)
check "and read again" $guestdisk verify /dev/imgstream0 image --start 2000 --blocks 600
equal "without being fetched again" "$fetched" "$(value fetched_bytes)"

exec 7</dev/imgstream0
refuse "the module cannot go while its device is open" rmmod imgstream
refuse "nor can the device" imgstreamctl detach
exec 7<&-

imgstreamctl fill on
eventually independent
equal "the fill ends with nothing absent" 0 "$(value blocks_absent)"
equal "each block was fetched once" $(((8192 - 16) * 4096)) "$(value fetched_bytes)"
equal "the connection is closed" closed "$(value connection)"
target_stop
check "everything is read without a target" $guestdisk verify /dev/imgstream0 image
check "the module goes" unload
check "it attaches without a target" load disk="$(disk disk)"
equal "and knows that it needs none" yes "$(value independent)"
check "everything is read again" $guestdisk verify /dev/imgstream0 image
equal "no error was met" "0 0 0" "$(value errors_read) $(value errors_write) $(value errors_journal)"
check "the module goes again" unload
target_start
finish
