#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Parallel sessions with targets that others have made: LIO says itself how many there are, and so it does after the number was
# changed; tgt serves three, too.
# needs-file: image 33562624 lun
# needs-file: disk 192M
# needs-target: image
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl /usr/sbin/nft
# needs-module: target_core_mod target_core_file iscsi_target_mod nf_tables
# needs-own-boot: LIO stays in the kernel
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/lio.sh
. /tests/lio.sh
# shellcheck source=selftests/guest/sessions.sh
. /tests/sessions.sh

# LIO's own number of sessions.
lio_has() {
	[ "$(cat "$lio_iscsi/$own_target/fabric_statistics/iscsi_instance/sessions")" = "$1" ]
}
all_is_right() {
	imgstreamctl fill on
	eventually independent
	$guestdisk verify /dev/imgstream0 image --start 16
}

make_image

plan 17
watch_logins
check "LIO serves the image" lio_start /tmp/image
check "a disk is laid out" lay_out_own "$(disk disk)"
check "the module attaches it, with three sessions" load disk="$(disk disk)" sessions=3
imgstreamctl fill off
eventually sessions_are "3 of 3"
check "LIO has three" lio_has 3
check "each under a name of its own" each_has_logged_in
check "what is read is right" $guestdisk verify /dev/imgstream0 image --start 16 --blocks 2000
check "there may be fewer" imgstreamctl sessions 1
eventually lio_has 1
check "and more again" imgstreamctl sessions 2
eventually lio_has 2
check "all of it is right" all_is_right
eventually lio_has 0
equal "no connection was lost, and no read" "0 0 none" "$(value reconnects) $(value errors_read) $(value last_error)"
check "the module goes" unload
check "LIO goes" lio_stop

check "a disk of tgt's image is laid out" lay_out "$(disk disk)"
check "the module attaches it, with three sessions" load disk="$(disk disk)" sessions=3
imgstreamctl fill off
eventually sessions_are "3 of 3"
check "all of it is right" all_is_right
equal "no connection was lost, and no read" "0 0 none" "$(value reconnects) $(value errors_read) $(value last_error)"
check "the module goes" unload
finish
