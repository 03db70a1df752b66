#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Several portals: when one dies the other one serves. A target that has moved is followed: for one connection, or from now
# on. One that sends us in a circle is named, and what is not here waits until it has made up its mind.
# needs-file: disk 192M
# needs-disk: disk
# needs-module: veth
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget /usr/bin/ip
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh
# shellcheck source=selftests/guest/network.sh
. /tests/network.sh

# The first two are configured, the third is where the target moves.
first=$far_portal
second=192.0.2.3:3260
third=192.0.2.3:3261
to_first=192,0,2,2,3260
to_third=192,0,2,3,3261

# redirecting DETAIL WHERE: the option that makes a target answer each login so; 1 is for one connection, 2 for good.
redirecting() {
	echo "--fault=*:0:login-redirect=$1,$2"
}

# served_by PORTAL: by none but that. route: the portal, and the configured one that led there if it is another.
served_by() {
	ready && [ "$(value portal)" = "$1" ]
}
route() {
	echo "$(value portal) $(value redirected_by)"
}

# end SERVER
end() {
	served=$1
	stop_serving
}

make_image

plan 22
check "there is a network" network
ip -n far addr add 192.0.2.3/24 dev far0
serve_at $second /tmp/image
at_second=$served
serve_at $first /tmp/image
at_first=$served
check "a disk with two portals is laid out" \
	$guestdisk disk "$(disk disk)" --portal $first --portal $second --target "$own_target"
check "the module attaches it" load disk="$(disk disk)"
imgstreamctl fill off
check "what is not here is read" local_reads
equal "through the first portal" "$first none" "$(route)"

end "$at_first"
read_later 1000
wait "$reader"
check "when it dies it is read as well" read_right 1000
equal "through the second portal" "$second none" "$(route)"

# Reads are counted from 0 on each connection; the first one is that of the identity check.
serve_at $third /tmp/image --fault 0:1:reset=1000
at_third=$served
serve_at $first /tmp/image "$(redirecting 1 $to_third)"
at_first=$served
end "$at_second"
eventually served_by $third
equal "a target that has moved for now is followed" "$third $first" "$(route)"
end "$at_first"
read_later 1500
eventually connection_says "refuse"
refuse "its next connection starts where it is configured, and waits for that" ended "$reader"
check "what is here is read" local_reads
serve_at $first /tmp/image
at_first=$served
wait "$reader"
check "what is not is read when that is back" read_right 1500
equal "there" "$first none" "$(route)"

end "$at_third"
serve_at $third /tmp/image --fault 0:1:reset=1000
at_third=$served
end "$at_first"
serve_at $first /tmp/image "$(redirecting 2 $to_third)"
at_first=$served
eventually served_by $third
equal "a target that has moved for good is followed" "$third $first" "$(route)"
end "$at_first"
read_later 2000
wait "$reader"
check "its next connection goes there at once" read_right 2000
equal "without the portal that is configured" "$third $first" "$(route)"

end "$at_third"
serve_at $third /tmp/image "$(redirecting 1 $to_first)"
at_third=$served
serve_at $first /tmp/image "$(redirecting 1 $to_third)"
at_first=$served
read_later 2500
may_wait 600
eventually connection_says "login refused: the target has moved, but in a circle"
check "when it sends us in a circle, which is said, what is here is read" local_reads
refuse "what is not waits" ended "$reader"
end "$at_first"
serve_at $first /tmp/image
at_first=$served
wait "$reader"
check "and is read when the target stays where it is" read_right 2500
equal "there" "$first none" "$(route)"
calm

check "the module goes" unload
end "$at_third"
end "$at_first"
check "and the network" network_away
finish
