# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2154
# LIO, the kernel's own target, by hand in configfs, as tests exchange units under a session, which targetcli does not do
# like this (peer-lio.sh has that). Needs target_core_mod, target_core_file and iscsi_target_mod.

lio_core=/sys/kernel/config/target/core
lio_iscsi=/sys/kernel/config/target/iscsi
lio_group=$lio_iscsi/$own_target/tpgt_1
lio_initiator=iqn.2026-11.net.imgstream:test
lio_acl=$lio_group/acls/$lio_initiator

# lio_unit NUMBER FILE: a backing store that shows FILE; the serial number is that of all of them, as on a real server
# where somebody has put another file behind the same unit.
lio_unit() {
	lio_size=
	[ -b "$2" ] || lio_size=,fd_dev_size=$(stat -c %s "$2")
	mkdir -p "$lio_core/fileio_$1/image" &&
		echo "fd_dev_name=$2$lio_size" >"$lio_core/fileio_$1/image/control" &&
		echo 00000000-0000-0000-0000-000000000001 >"$lio_core/fileio_$1/image/wwn/vpd_unit_serial" &&
		echo 1 >"$lio_core/fileio_$1/image/enable"
}

# lio_show NUMBER: it is LUN 1 from now on, for the one initiator that there is, read-only; lio_hide: there is none.
lio_show() {
	mkdir -p "$lio_group/lun/lun_1" "$lio_acl" &&
		ln -s "$lio_core/fileio_$1/image" "$lio_group/lun/lun_1/image" &&
		mkdir -p "$lio_acl/lun_1" &&
		ln -s "$lio_group/lun/lun_1" "$lio_acl/lun_1/image" &&
		echo 1 >"$lio_acl/lun_1/write_protect"
}
lio_hide() {
	rm "$lio_acl/lun_1/image" && rmdir "$lio_acl/lun_1" &&
		rm "$lio_group/lun/lun_1/image" && rmdir "$lio_group/lun/lun_1"
}

# lio_portal ADDRESS:PORT: where it listens, once it is enabled.
lio_portal() {
	mkdir -p "$lio_group/np/$1"
}

# lio_enabled 0|1: whether its portals take connections; without, there is none.
lio_enabled() {
	echo "$1" >"$lio_group/enable"
}

# lio_start FILE: it serves FILE at $own_portal, without authentication.
lio_start() {
	[ -d /sys/kernel/config/target ] || mount -t configfs config /sys/kernel/config
	mkdir -p $lio_core $lio_iscsi "$lio_group" &&
		lio_unit 0 "$1" && lio_show 0 && lio_portal "$own_portal" &&
		echo 0 >"$lio_group/attrib/authentication" && lio_enabled 1
}

# lio_chap USER SECRET [USER SECRET]: it lets in who proves to be the first one, and is itself the second.
lio_chap() {
	printf %s "$1" >"$lio_acl/auth/userid" && printf %s "$2" >"$lio_acl/auth/password" &&
		printf %s "${3:-}" >"$lio_acl/auth/userid_mutual" && printf %s "${4:-}" >"$lio_acl/auth/password_mutual" &&
		echo 1 >"$lio_group/attrib/authentication"
}

# lio_state NUMBER: of access to the unit that is shown first (SPC-4 5.15.2.4): 0 is the usual one, 2 standby, 3
# unavailable, 15 in transition.
lio_state() {
	echo "$1" >"$lio_core/fileio_0/image/alua/default_tg_pt_gp/alua_access_state"
}

# lio_stop: all of it is gone, so that its modules can go.
lio_stop() {
	lio_enabled 0
	[ ! -e "$lio_acl/lun_1" ] || lio_hide
	rmdir "$lio_acl" "$lio_group"/np/* "$lio_group" "$lio_iscsi/$own_target" &&
		rmdir $lio_core/fileio_*/image $lio_core/fileio_*
}
