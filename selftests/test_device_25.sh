#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A scan for partitions that waits for a dead network, and holds up who opens the disk, does not hold up who detaches it:
# the scan ends, the disk goes, and who waited is told that there is none.
# needs-file: image 33562624 lun
# needs-target: image
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

# The image has an extended partition: what is in it is described where the boot region is not.
table() {
	partition "$(disk disk)" 16 && printf '\005' | dd of="$(disk disk)" bs=1 seek=450 conv=notrunc,fsync
}
scanning() {
	waiting && [ "$(value partitions)" = waiting ]
}
# open_it: $opener opens the disk, and is held up.
open_it() {
	dd if=/dev/imgstream0 of=/dev/null bs=4096 count=1 2>/tmp/opener &
	opener=$!
	eventually sleep_in_kernel $opener
}
# Whether it has ended, and how.
found_none() {
	! wait "$opener" && grep -q 'No such device' /tmp/opener
}

plan 13
check "a disk is laid out" lay_out "$(disk disk)"
check "for an image with an extended partition" table
target_stop
check "the module attaches it without a repository" load disk="$(disk disk)"
eventually scanning
pass "the scan waits"
open_it
check "it is detached" imgstreamctl detach
check "who was about to open it is told that it is gone" found_none
refuse "nothing of it is left" ls -d /dev/imgstream0 /sys/block/imgstream0
check "the module goes" unload
check "it is attached once more" load disk="$(disk disk)"
eventually scanning
check "and goes with the module" unload
target_start
check "with the repository it is attached" load disk="$(disk disk)"
eventually independent
check "and read" $guestdisk verify /dev/imgstream0 image --start 5 --blocks 8000
check "the module goes once more" unload
finish
