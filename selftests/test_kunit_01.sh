#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The tests inside of the module (KUnit): they run when it is loaded, and the kernel keeps what they said.
# needs-kernel: debug
# needs-cmdline: kunit.enable=1 kunit.autorun=1
# shellcheck source=selftests/guest/common.sh
. /tests/common.sh

suites="imgstream_address imgstream_bdev imgstream_bio imgstream_bio_set imgstream_blk_disk imgstream_blk_door
	imgstream_blk_mq imgstream_completion imgstream_crypto imgstream_driver imgstream_epoch imgstream_errno
	imgstream_errors imgstream_fetch imgstream_inner imgstream_ioctl imgstream_irq_spinlock imgstream_journal
	imgstream_limits imgstream_link imgstream_links imgstream_load imgstream_mempool imgstream_merge
	imgstream_misc imgstream_noio imgstream_page imgstream_pm imgstream_retry imgstream_socket
	imgstream_source_status imgstream_superblocks imgstream_sysfs imgstream_tables imgstream_time imgstream_waiter
	imgstream_workqueue"
kunit=/sys/kernel/debug/kunit

# said SUITE: its results, without what is around them.
said() {
	sed -n 's/^    //p' $kunit/"$1"/results
}

load || bail "the module does not load"
# Each suite says how many results it has; one more each: that it is there. Two more: that there is no other, and the end.
planned=0
for suite in $suites; do
	suite_plan=$(said "$suite" | sed -n 's/^1\.\.//p')
	planned=$((planned + 1 + ${suite_plan:-0}))
done
plan $((planned + 2))
# shellcheck disable=SC2086 # a list of words
equal "there are no others" "$(printf '%s\n' $suites | sort)" "$(cd $kunit && printf '%s\n' imgstream* | sort)"
for suite in $suites; do
	said "$suite" >/tmp/said
	check "suite $suite" test -s /tmp/said
	while read -r line; do
		case $line in
		"ok "*) pass "$suite: ${line#ok * }" ;;
		"not ok "*) fail "$suite: ${line#not ok * }" ;;
		KTAP* | 1..* | *"speed: normal") ;;
		*) note "${line#"# "}" ;;
		esac
	done </tmp/said
done
check "the module goes" unload
finish
