# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC2154
# Parallel sessions, as the network sees them. Some of it needs nft.

# sessions_are TEXT: "READY of WANTED". sessions_begin TEXT: that, and then a reason.
sessions_are() {
	[ "$(value sessions)" = "$1" ]
}
sessions_begin() {
	case $(value sessions) in "$1: "*) true ;; *) false ;; esac
}

# connections [PORT]: the ports on this side of the connections to any target at that port (3260) that are established, in the
# order of their numbers.
connections() {
	awk -v there="$(printf ':%04X' "${1:-3260}")" \
		'substr($3, 9) == there && $4 == "01" { split($2, own, ":"); print own[2] }' /proc/net/tcp | sort | while read -r hex; do
		echo $((0x$hex))
	done
}

# one_is_left [PORT]: of these connections.
one_is_left() {
	[ "$(connections "$@" | wc -l)" = 1 ]
}

# watch_logins: from now on, login requests (0x43) are counted by the last byte of their ISID, which is the session's number.
# Logout requests (0x46) are counted, too.
# logins NUMBER: how many packets of one. A login has two requests at least. logouts: of all.
watch_logins() {
	nft -f - <<-'END'
		table inet logins {
			counter of0 { }
			counter of1 { }
			counter of2 { }
			counter ends { }
			chain out {
				type filter hook output priority 0
				tcp dport 3260 @ih,0,8 0x43 @ih,104,8 0 counter name of0
				tcp dport 3260 @ih,0,8 0x43 @ih,104,8 1 counter name of1
				tcp dport 3260 @ih,0,8 0x43 @ih,104,8 2 counter name of2
				tcp dport 3260 @ih,0,8 0x46 counter name ends
			}
		}
	END
}
logins() {
	packets "of$1"
}
logouts() {
	packets ends
}
packets() {
	nft list counter inet logins "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p'
}
each_has_logged_in() {
	[ "$(logins 0)" -ge 2 ] && [ "$(logins 1)" -ge 2 ] && [ "$(logins 2)" -ge 2 ]
}

# reset_from PORT: somebody ends the connection from that port, whenever we send something, until `undo`.
# reset_all [PORT]: so ends each connection to that port (3260), and none is made.
# drop_from PORT: its packets vanish, both ways.
reset_from() {
	nft -f - <<-END
		table inet hurt {
			chain out { type filter hook output priority 0; tcp sport $1 tcp dport 3260 reject with tcp reset; }
		}
	END
}
reset_all() {
	nft -f - <<-END
		table inet hurt {
			chain out { type filter hook output priority 0; tcp dport ${1:-3260} reject with tcp reset; }
		}
	END
}
drop_from() {
	nft -f - <<-END
		table inet hurt {
			chain out { type filter hook output priority 0; tcp sport $1 tcp dport 3260 drop; }
			chain in { type filter hook input priority 0; tcp sport 3260 tcp dport $1 drop; }
		}
	END
}
undo() {
	nft delete table inet hurt
}
