#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The scripted target, asked by an initiator that others have made, open-iscsi with the kernel's own iscsi_tcp: it finds the
# unit, reads all of it with and without digests, cannot write, and goes on with a target that has died and come back.
# needs-module: iscsi_tcp sd_mod
# needs-program: tools/imgstream-guestdisk tools/imgstream-testtarget iscsid iscsiadm
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

iscsid_starts() {
	mkdir -p /etc/iscsi /run/lock/iscsi /var/lib
	echo InitiatorName=iqn.2026-11.net.imgstream:test >/etc/iscsi/initiatorname.iscsi
	# A NOP-Out a second.
	cat >/etc/iscsi/iscsid.conf <<-'END'
		node.startup = manual
		node.conn[0].timeo.noop_out_interval = 1
		node.conn[0].timeo.noop_out_timeout = 60
	END
	iscsid --foreground --no-pid-file >/tmp/iscsid 2>&1 &
	initiator=$!
	eventually iscsid_has_begun
	said_well "$(kill -0 "$initiator"; echo $?)" /tmp/iscsid
}
iscsid_has_begun() {
	grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix || ! kill -0 "$initiator"
}
node() {
	iscsiadm --mode node --targetname "$own_target" --portal "$own_portal" "$@"
}

# unit: the disk that the session has brought, once it is there. there_is_one: whether it is.
unit() {
	for unit_sys in /sys/class/iscsi_session/session*/device/target*/*:1/block/sd*; do
		echo "/dev/${unit_sys##*/}"
	done
}
there_is_one() {
	[ -b "$(unit)" ]
}

# log_in DIGEST: for both directions' headers and data, as open-iscsi names it.
log_in() {
	node --op update --name 'node.conn[0].iscsi.HeaderDigest' --value "$1" &&
		node --op update --name 'node.conn[0].iscsi.DataDigest' --value "$1" &&
		node --login && eventually there_is_one
}
digests() {
	cat /sys/class/iscsi_connection/connection*/header_digest /sys/class/iscsi_connection/connection*/data_digest | xargs
}

all_is_read() {
	blockdev --flushbufs "$(unit)" && cmp "$(unit)" /tmp/image
}
be_written() {
	there_is_one && ! dd if=/dev/zero of="$(unit)" bs=4096 count=1 conv=fsync
}

make_image
serve /tmp/image --digests offer --offered-at $own_portal,1

plan 14
check "open-iscsi begins" iscsid_starts
equal "discovery names the target" "$own_portal,1 $own_target" \
	"$(iscsiadm --mode discovery --type sendtargets --portal $own_portal)"
for digest in None CRC32C; do
	check "open-iscsi logs in, digest $digest" log_in $digest
	case $digest in
	None) equal "without digests" "0 0" "$(digests)" ;;
	*) equal "with both" "1 1" "$(digests)" ;;
	esac
	equal "the unit has the image's size, for reading" "33562624 1" \
		"$(blockdev --getsize64 "$(unit)") $(blockdev --getro "$(unit)")"
	check "all of it is right" all_is_read
	[ $digest = CRC32C ] || check "it logs out" node --logout
done
check "nothing can be written" be_written
stop_serving
serve /tmp/image --digests offer
check "the target dies and comes back, and all of it is right" all_is_read
check "it logs out" node --logout
kill "$initiator"
stop_serving
finish
