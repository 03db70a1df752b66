# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# Leaked memory, on a kernel that can tell. Of init and of next_boot.

leaks=/sys/kernel/debug/kmemleak

# find_leaks: the kernel's log has what nothing points to any more. That is looked for twice, as what has changed from one scan
# to the next is not told of. Neither is what is younger than 5 seconds, the second time.
find_leaks() {
	[ -e $leaks ] || return 0
	sleep 6 &
	leaks_older=$!
	echo scan >$leaks
	wait $leaks_older
	echo scan >$leaks
	cat $leaks >/dev/console
}
