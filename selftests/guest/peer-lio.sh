#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The second machine of a test: LIO with its disk as LUN 1 at 192.0.2.2:3260, set up by targetcli, which is in the host's
# /usr. It takes the orders "on", "off" and "chap USER SECRET USER SECRET".
# needs-module: target_core_mod target_core_file iscsi_target_mod 9p 9pnet_virtio
# needs-memory: 512
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
tpg=/iscsi/$own_target/tpg1
initiator=iqn.2026-11.net.imgstream:test
serial=00000000-0000-0000-0000-000000000001

# What targetcli says is in the machine's log.
exec >/dev/console 2>&1

# What a server has where targetcli looks for it: Python, its own directory, a system bus.
be_a_server() {
	mkdir -p /usr /var /etc/rtslib-fb-target /run/dbus
	ln -s usr/lib usr/lib64 / && ln -s /run /var/run
	mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 usr /usr &&
		echo root:x:0:0:root:/tmp:/bin/sh >/etc/passwd &&
		dbus-daemon --session --address=unix:path=/run/dbus/system_bus_socket --fork
}

# The serial number is the same after a new start, as on a server that has saved its configuration.
serve_disk() {
	targetcli <<-END
		/backstores/fileio create name=image file_or_dev=/dev/vda write_back=false wwn=$serial
		/iscsi create $own_target
		$tpg/portals delete 0.0.0.0 3260
		$tpg/portals create 192.0.2.2 3260
		$tpg/luns create /backstores/fileio/image lun=1 add_mapped_luns=false
		$tpg/acls create $initiator add_mapped_luns=false
		$tpg/acls/$initiator create mapped_lun=1 tpg_lun_or_backstore=lun1 write_protect=1
		$tpg set attribute authentication=0
		exit
	END
}
chap() {
	targetcli <<-END
		$tpg/acls/$initiator set auth userid=$1 password=$2
		$tpg/acls/$initiator set auth mutual_userid=$3 mutual_password=$4
		$tpg set attribute authentication=1
		exit
	END
}

# Whether the last but one of them had its effect: targetcli goes on after an error, and ends well.
read_only() {
	[ "$(cat /sys/kernel/config/target/iscsi/"$own_target/tpgt_1/acls/$initiator/lun_1/write_protect")" = 1 ]
}

ip addr flush dev eth0
ip addr add 192.0.2.2/24 dev eth0
be_a_server && serve_disk && read_only && echo "#! ready" >&3
while read -r order words <&3; do
	# Four words of an order are four arguments.
	# shellcheck disable=SC2086
	case $order in
	on) targetcli "$tpg" enable ;;
	off) targetcli "$tpg" disable ;;
	chap) chap $words ;;
	*) false ;;
	esac
	echo "#! did $?" >&3
done
