#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A boot waits for a repository that is gone: whoever is at the console is asked, and can look round, wait, or roll back.
# Nothing happens by itself but that the boot goes on when the repository is back; in make check-long after half an hour.
# needs-file: disk 192M
# needs-disk: disk
# needs-program: tools/imgstream-guestdisk tools/imgstreamctl tools/imgstream-testtarget
# needs-own-boot: it restarts the machine
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

disk=$(disk disk)
absent=6900
# The console: what is typed, and what is shown.
keys=/tmp/keys
shown=/tmp/shown
# asked TIMES: so often what to do.
asked() {
	[ "$(grep -c 'type s for a shell, r to roll back' "$shown")" -ge "$1" ]
}

# A word now and then, so that nobody takes this for hung.
ten_minutes() {
	for minute in 1 2 3 4 5 6 7 8 9 10; do
		sleep 60
		note "minute $minute"
	done
}

plan 21
if [ "$BOOT" = 1 ]; then
	make_image
	serve /tmp/image
	check "a disk is laid out" lay_out_own "$disk"
	add_settings "$disk"
	stop_serving
	check "the module attaches it" load disk="$disk"
	into=/tmp/read be_reader $absent &
	reader=$!
	eventually waiting
	mkfifo $keys
	exec 4<>$keys
	imgstreamctl boot --ask <$keys >$shown 2>&1 &
	asking=$!
	eventually asked 1
	pass "after half a minute somebody is asked"
	check "and told why" grep -q 'the repository at .* does not answer (disconnected: connection refused' $shown
	# A shell reads the same console.
	printf 's\n%s\n' "echo here-\$((40 + 2)); exit" >&4
	eventually grep -q here-42 $shown
	eventually asked 2
	pass "there is a shell, and afterwards the question again"
	echo yes >&4
	eventually asked 3
	pass "yes is no answer to it"
	echo r >&4
	eventually grep -q 'everything written since the migration is lost' $shown
	echo r >&4
	eventually asked 4
	equal "r without yes rolls nothing back" streaming "$(value state)"
	# What the initramfs calls while root is not there: it is in none of them here.
	mkdir -p /run/imgstream && touch /run/imgstream/attached
	imgstreamctl boot --once &
	once=$!
	for third in 1 2 3; do
		[ -z "$LONG" ] || ten_minutes
		refuse "who wants what is not here waits ($third of 3)" ended $reader
		refuse "and so does an initramfs whose root is not there" ended $once
	done
	serve /tmp/image
	imgstreamctl reconnect
	eventually grep -q 'the repository answers' $shown
	pass "when the repository is back it says so"
	wait $once
	equal "an initramfs that waits for root looks again then" 0 $?
	rm /run/imgstream/attached
	wait $reader
	check "and who waited goes on" cmp -n 4096 /tmp/read /tmp/image 0 $((absent * 4096))
	stop_serving
	eventually gone
	be_reader $((absent + 100)) &
	echo r >&4
	eventually asked 5
	pass "when it is gone again somebody is asked again"
	equal "what was typed before is no answer" 1 "$(grep -c 'everything written' $shown)"
	check "who asks is still there" kill -0 $asking
	# yes restarts the machine, while somebody waits for the repository.
	next_boot sh -c "printf 'r\nyes\n' >$keys"
	fail "the machine is restarted"
	exit
fi
check "after r and yes the disk says that it is rolled back" sh -c "imgstreamctl dump --json $disk | grep rolling-back"
refuse "and is not attached" load disk="$disk"
finish
