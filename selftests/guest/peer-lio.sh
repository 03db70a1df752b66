#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The second machine of a test: LIO with its disk as LUN 1 at 192.0.2.2:3260. It takes the orders "on" and "off".
# needs-module: target_core_mod target_core_file iscsi_target_mod
# needs-memory: 512
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
own_portal=192.0.2.2:3260
# shellcheck source=selftests/guest/lio.sh
. /tests/lio.sh

ip addr flush dev eth0
ip addr add 192.0.2.2/24 dev eth0
lio_start /dev/vda && echo "#! ready" >&3
while read -r order <&3; do
	case $order in
	on) lio_enabled 1 ;;
	off) lio_enabled 0 ;;
	*) false ;;
	esac
	echo "#! did $?" >&3
done
