#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A commit on a disk with bad places: what the repository has as well is fetched again, what nothing helps against stops
# the commit, says so everywhere, and loses nothing; told to, it goes on.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-module: dm_mod
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl dmsetup
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# heard STATE: an event of the device carried it.
heard() {
	grep -q "^IMGSTREAM_STATE=$1\$" /tmp/events
}

plan 25
check "a disk that can be weakened" weak_disk disk
layout=$(lay_out "$weak")
useful=$(place U "$layout")
busybox uevent env >/tmp/events 2>/dev/null &
events=$!
check "the module attaches it" load disk="$weak"
imgstreamctl fill off
check "blocks are fetched" $guestdisk verify /dev/imgstream0 image --start 1000 --blocks 400
check "and written" $guestdisk stamp /dev/imgstream0 mine --start 3000 --blocks 50
eventually heard streaming

before=$(complaints)
weaken "$(slot 1020)" $((40 * 4096)) "$(slot 1200)" 4096 "$(slot 3010)" 4096
imgstreamctl commit --yes --now
eventually stopped
check "bad clean blocks do not stop a commit" [ "$(value copied)" -gt $((1200 * 4096)) ]
equal "a bad written block does, and is named" \
	"stopped: block 3010 cannot be read where it is, at byte $(slot 3010) of the disk" "$(value commit)"
equal "it is still committing" committing "$(value state)"
equal "the reason is the last error" "block 3010 cannot be read where it is, at byte $(slot 3010) of the disk" \
	"$(value last_error)"
errors=$(value errors_read)
# Longer than the pause after which things are tried again.
sleep 3
equal "it is said once" $((before + 1)) "$(complaints)"
equal "and not tried again and again" "$errors" "$(value errors_read)"
check "what was bad reads as the image" $guestdisk verify /dev/imgstream0 image --start 1000 --blocks 400
check "what is not home is read" $guestdisk verify /dev/imgstream0 mine --start 3011 --blocks 39
check "and written" $guestdisk stamp /dev/imgstream0 mine --start 3050 --blocks 50
refuse "it cannot be paused" imgstreamctl pause
check "who waits is told" says "block 3010 cannot be read" imgstreamctl commit --yes --wait

weaken $((6000 * 4096)) 4096
check "with that block good again it goes on" imgstreamctl resume
stopped_at_6000() {
	stopped && [ "$(value copied)" -gt $((3100 * 4096)) ]
}
eventually stopped_at_6000
equal "to a place that cannot be written" \
	"stopped: block 6000 cannot be written to its place, byte $((6000 * 4096)) of the disk" "$(value commit)"
weaken
check "and on" imgstreamctl resume
eventually committed
eventually heard committed
pass "the end was announced"
check "so was the beginning" heard committing
kill $events
check "the device goes" imgstreamctl detach
check "the module goes" unload
check "everything is home" sh -c "
	$guestdisk verify $weak image --blocks 3000 &&
	$guestdisk verify $weak mine --start 3000 --blocks 100"
check "to the last block" $guestdisk verify "$weak" image --start 3100 --blocks 5092
check "the disk is given back" weak_disk_away
finish
