# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh disable=SC1090,SC2034,SC2154
# What tests share. A test starts with ". /tests/common.sh", then says "plan N", then N results, then "finish".

# BOOT, PORTAL, TARGET_..., DISK_..., results of an earlier boot, LONG if there is time, and what the test's recipes left.
. "/tests/$TEST.env"
# shellcheck source=selftests/guest/leaks.sh
. /tests/leaks.sh

# plan N: how many results will come.
plan() {
	[ "$BOOT" != 1 ] || printf 'KTAP version 1\n1..%s\n' "$1"
}

note() {
	printf '%s\n' "$*" | sed 's/^/# /'
}

pass() {
	ktap_number=$((ktap_number + 1))
	printf 'ok %s - %s\n' "$ktap_number" "$*"
}

fail() {
	ktap_number=$((ktap_number + 1))
	ktap_failed=$((ktap_failed + 1))
	printf 'not ok %s - %s\n' "$ktap_number" "$*"
}

# skip REASON TEXT...: a result that cannot be had here.
skip() {
	skip_reason=$1
	shift
	ktap_number=$((ktap_number + 1))
	printf 'ok %s - %s # SKIP %s\n' "$ktap_number" "$*" "$skip_reason"
}

# check TEXT COMMAND...: passes if COMMAND does; its output is shown if it does not.
check() {
	check_text=$1
	shift
	if check_output=$("$@" 2>&1); then
		pass "$check_text"
	else
		note "$*: exit status $?"
		[ -z "$check_output" ] || note "$check_output"
		fail "$check_text"
	fi
}

# refuse TEXT COMMAND...: passes if COMMAND fails.
refuse() {
	check_text=$1
	shift
	if check_output=$("$@" 2>&1); then
		note "$*: should have failed"
		[ -z "$check_output" ] || note "$check_output"
		fail "$check_text"
	else
		pass "$check_text"
	fi
}

# equal TEXT WANTED GOT
equal() {
	if [ "$2" = "$3" ]; then
		pass "$1"
	else
		note "wanted '$2', got '$3'"
		fail "$1"
	fi
}

# says WORDS COMMAND...: COMMAND fails and says WORDS.
says() {
	says_words=$1
	shift
	! says_output=$("$@" 2>&1) && echo "$says_output" && echo "$says_output" | grep -q "$says_words"
}

# said_well STATUS FILE: whether a program has ended well; else what it said.
said_well() {
	[ "$1" = 0 ] || {
		cat "$2"
		return 1
	}
}

# bail TEXT...: this test cannot go on.
bail() {
	printf 'Bail out! %s\n' "$*"
	exit 1
}

finish() {
	[ "$ktap_failed" = 0 ]
	exit
}

# load [PARAMETER=VALUE...]: loads imgstream.ko.
load() {
	insmod /modules/imgstream.ko "$@"
}

# unload: also while a disk is attached. Where lockdep is, a socket holds the module whose lock class it has until it is gone
# (sk_owner_set() in <net/sock.h>), so that the disk has to be detached first there.
unload() {
	if [ -e /proc/lockdep ] && [ -e /sys/block/imgstream0 ]; then
		imgstreamctl detach || return
		eventually unheld
	fi
	rmmod imgstream
}

unheld() {
	[ "$(cat /sys/module/imgstream/refcnt)" = 0 ]
}

# The files of the attached device, and the program that lays disks out and knows contents.
status=/sys/block/imgstream0/imgstream
guestdisk=imgstream-guestdisk

# value FILE: what the device says there.
value() {
	cat "$status/$1"
}

# What can be waited for with `eventually`. The connection is there; it is gone, and the reason is known.
ready() {
	[ "$(value connection)" = ready ]
}

gone() {
	case $(value connection) in disconnected:*) true ;; *) false ;; esac
}

# Nothing is being fetched; so many fetches, or more, are under way; something waits for the repository; nothing is absent
# any more.
idle() {
	[ "$(value inflight)" = 0 ]
}

under_way() {
	[ "$(value inflight)" -ge "$1" ]
}

waiting() {
	[ "$(value fetches_inflight)" -gt 0 ]
}

independent() {
	[ "$(value independent)" = yes ]
}

# The commit has moved 16 MiB; something has stopped it; it is through.
half_way() {
	[ "$(value copied)" -ge $((16 << 20)) ]
}

stopped() {
	case $(value commit) in stopped:*) true ;; *) false ;; esac
}

committed() {
	[ "$(value commit)" = "done" ]
}

# ended PROCESS
ended() {
	! kill -0 "$1" 2>/dev/null
}

# How often a commit has been stopped, by the kernel's log.
complaints() {
	dmesg | grep -c "the commit has stopped"
}

# unreadable_there BLOCK: what the device says of a block that only the repository has, and cannot read.
unreadable_there() {
	echo "block $1 is not here, and the repository cannot read it: byte $(($1 * 4096)) of the image has to be repaired there"
}

# lay_out DEVICE [OPTION...]: a disk of the file "image" of a needs-target line, streaming; says where things are.
lay_out() {
	$guestdisk disk "$@" --portal "$PORTAL" --target "$(target_name image)"
}

# add_settings DEVICE: what `check` looks for as well, and nothing here uses.
add_settings() {
	$guestdisk network "$1" --mac 52:54:00:12:34:56 --address 10.0.2.15/24
}

# place LETTER LINE: a number of what lay_out says.
place() {
	echo "$2" | sed "s/.* $1 \([0-9]*\) .*/\1/"
}

# slot BLOCK: where it is kept while it is not home, as a byte of the disk; $useful is U.
slot() {
	echo $((useful + $1 * 4096))
}

# mbr_entry FIRST_SECTOR SECTORS: of a Linux partition, its 16 bytes.
mbr_entry() {
	printf '\000\000\000\000\203\000\000\000'
	for mbr_number in "$1" "$2"; do
		for mbr_shift in 0 8 16 24; do
			printf '%b' "\\0$(printf %o $((mbr_number >> mbr_shift & 255)))"
		done
	done
}

# mbr [FIRST_SECTOR SECTORS]...: a table of Linux partitions, from its place in the first sector on to the end of that.
mbr() {
	mbr_left=64
	while [ $# -gt 0 ]; do
		mbr_entry "$1" "$2"
		mbr_left=$((mbr_left - 16))
		shift 2
	done
	head -c $mbr_left /dev/zero
	printf '\125\252'
}

# write_mbr DISK [FIRST_SECTOR SECTORS]...: the kernel is not told.
write_mbr() {
	mbr_disk=$1
	shift
	mbr "$@" | dd of="$mbr_disk" bs=1 seek=446 conv=notrunc,fsync
}

# partition DISK [MIB]: one Linux partition of 31 MiB, or so many, from 1 MiB on; the kernel is not told.
partition() {
	write_mbr "$1" 2048 $((${2:-31} * 2048))
}

# partition_now DISK [MIB]: the same, and it is there.
partition_now() {
	partition "$@" && blockdev --rereadpt "$1"
}

# partition_name NUMBER DISK: with "p" behind a digit.
partition_name() {
	case $2 in *[0-9]) echo "${2}p$1" ;; *) echo "$2$1" ;; esac
}

# disk NAME: the device of a needs-disk line.
disk() {
	eval "disk_serial=\${DISK_$1:?no such disk}"
	for disk_sys in /sys/block/vd*; do
		# Disks are found in any order, a moment after the driver is there.
		if [ "$(cat "$disk_sys/serial")" = "$disk_serial" ]; then
			echo "/dev/${disk_sys##*/}"
			return
		fi
	done
	echo "/dev/disk-$1-is-missing"
	return 1
}

# unplug NAME: the machine is asked to let go of the disk of a needs-disk line, which is back at the next boot.
unplug() {
	eval "host unplug \"\${DISK_$1:?no such disk}\""
}

# weak_disk NAME: $weak is that disk, below a mapping that can be made to fail. Needs dm_mod and dmsetup.
weak=/dev/dm-0
weak_disk() {
	weak_below=$(disk "$1")
	# For `weaken`: this may run in a subshell.
	echo "$weak_below" >/tmp/weak_below
	dmsetup --noudevsync create weak --table "0 $(blockdev --getsz "$weak_below") linear $weak_below 0"
}

# weaken [FIRST_BYTE BYTES]...: these places, ascending, fail from now on; all others work.
weaken() {
	weaken_as error "$@"
}

# no_flush BYTE: from now on everything works but flushes, which go to all parts of the disk, and writes to the block
# there. Needs dm_flakey.
no_flush() {
	weaken_as "flakey $(cat /tmp/weak_below) $(($1 / 512)) 0 1 1 error_writes" "$1" 4096
}

# weaken_as TARGET [FIRST_BYTE BYTES]...: in these places a target of the device mapper takes the disk's place.
weaken_as() {
	weak_target=$1 weak_at=0 weak_below=$(cat /tmp/weak_below)
	weak_sectors=$(blockdev --getsz "$weak_below")
	shift
	{
		while [ $# -gt 0 ]; do
			weak_first=$(($1 / 512)) weak_count=$(($2 / 512))
			echo "$weak_at $((weak_first - weak_at)) linear $weak_below $weak_at"
			echo "$weak_first $weak_count $weak_target"
			weak_at=$((weak_first + weak_count))
			shift 2
		done
		echo "$weak_at $((weak_sectors - weak_at)) linear $weak_below $weak_at"
	} >/tmp/weak_table
	dmsetup --noudevsync suspend --noflush weak &&
		dmsetup --noudevsync reload weak /tmp/weak_table &&
		dmsetup --noudevsync resume weak
}

# The disk is itself again.
weak_disk_away() {
	dmsetup --noudevsync remove weak
}

# target_name NAME: the iSCSI name of a needs-target line; its LUN is 1, its portal $PORTAL.
target_name() {
	eval "echo \"\${TARGET_$1:?no such target}\""
}

# host COMMAND...: asks the runner and waits for its answer.
host() {
	echo "#! host $*" >&3
	read -r host_answer <&3
	[ "$host_answer" = ok ]
}

# The target is gone as after a power cut, and back with the same name, port and image.
target_stop() {
	may_wait 600
	host target-stop
}

target_start() {
	host target-start
	may_wait 120
}

# target_chap [USER SECRET [USER SECRET]]: the target lets in who proves to be the first one, and is itself the second. It is
# away for a moment.
target_chap() {
	may_wait 600
	host target-chap "$@"
	may_wait 120
}

# may_wait SECONDS: who waits for longer has been forgotten by the kernel. A reader may wait for a repository that is gone.
may_wait() {
	echo "$1" >/proc/sys/kernel/hung_task_timeout_secs
}

# next_boot [COMMAND...]: the machine stops without any cleaning up, or as COMMAND has it stop, and boots again with the same
# disks; the test then runs again with BOOT one higher. Only for tests with needs-own-boot. What has leaked is looked for before,
# which takes a while on the debug kernel: next_boot_now is for those who stop it in the middle of something.
next_boot() {
	find_leaks
	next_boot_now "$@"
}
next_boot_now() {
	[ $# -gt 0 ] || set -- sysrq b
	echo "#! next-boot $ktap_number $ktap_failed" >&3
	read -r _ <&3
	"$@"
	sleep 60
}

# sysrq LETTER: see Documentation/admin-guide/sysrq.rst of the kernel.
sysrq() {
	echo "$1" >/proc/sysrq-trigger
}

# power_cut: the same, in the middle of whatever goes on: the machine is killed.
power_cut() {
	echo "#! power-cut $ktap_number $ktap_failed" >&3
	sleep 60
}

# eventually COMMAND...: waits until COMMAND passes; a test that would wait for ever is ended by the runner.
eventually() {
	until "$@"; do
		sleep 0.1
	done
}

# sleep_in_kernel PID...: whether all of them wait there, and no signal ends that.
sleep_in_kernel() {
	for sleeper in "$@"; do
		read -r sleeper_stat <"/proc/$sleeper/stat" || return
		case $sleeper_stat in *') D '*) ;; *) return 1 ;; esac
	done
}

# commit_held_up: whether the commit waits there: for the disk, or for those who write. The batch is excluded before it does.
commit_held_up() {
	cat /proc/[0-9]*/stat 2>/dev/null | grep -q '+imgstream_bg) D '
}

# make_image: /tmp/image, 32 MiB and a trailer. make_other_image: /tmp/other, like it, with another trailer.
make_image() {
	truncate -s 33562624 /tmp/image
	$guestdisk lun /tmp/image
}

make_other_image() {
	cp /tmp/image /tmp/other
	tr '\0-\377' '\1-\377\0' </tmp/image | tail -c 4096 |
		dd of=/tmp/other bs=4096 seek=8193 conv=notrunc 2>/dev/null
}

# be_reader BLOCK [BLOCKS]: becomes one that reads them past the page cache, into the file $into if that is set.
be_reader() {
	exec dd if=/dev/imgstream0 of="${into:-/dev/null}" bs=4096 skip="$1" count="${2:-1}" iflag=direct 2>/dev/null
}

# be_part_writer FILE BLOCK SECTOR [FLAGS]: becomes one that makes FILE that sector of the block, past the page cache, and
# with ",dsync" durably, which busybox cannot: needs dd.
be_part_writer() {
	exec /usr/bin/dd if="$1" of=/dev/imgstream0 bs=512 seek=$(($2 * 8 + $3)) count=1 oflag="direct${4:-}" conv=notrunc \
		status=none
}

# write_part FILE BLOCK SECTOR [FLAGS]: the same, and goes on.
write_part() {
	(be_part_writer "$@")
}

# work_hard FIRST_MIB MIB: $worker reads and writes there, until it is killed or meets an error; it has begun when this
# returns. Needs fio; $disk is the disk.
work_hard() {
	work_done=$(writes_done)
	fio --name=work --filename=/dev/imgstream0 --ioengine=libaio --iodepth=16 --thread --direct=1 --rw=randrw --bs=1k-32k \
		--offset="$1m" --size="$2m" --time_based --runtime=1h --fsync=20 >/tmp/work 2>&1 &
	worker=$!
	eventually has_worked
}

writes_done() {
	awk '{ print $5 }' "/sys/block/${disk#/dev/}/stat"
}

has_worked() {
	[ $(($(writes_done) - work_done)) -ge 200 ]
}

# read_rate MIB: at which that much of the device is read from front to back, from the second MiB on, with eight reads of a MiB
# under way, in KiB/s. Needs fio.
read_rate() {
	fio --name=rate --filename=/dev/imgstream0 --readonly --direct=1 --ioengine=libaio --iodepth=8 --rw=read --bs=1m \
		--offset=1m --size="$1m" --output-format=terse --terse-version=3 | awk -F\; '{ print $7 }'
}

# make_contents DISK: that disk of 32 MiB and /tmp/image have a GPT with an ext4 and a swap area, all with names.
make_contents() {
	make_image && dd if=/tmp/image of="$1" bs=4096 count=8192 2>/dev/null &&
		printf 'label: gpt\nsize=16M,name=first,type=L\nsize=8M,name="second one",type=S\n' | sfdisk --quiet "$1" &&
		/usr/sbin/mke2fs -q -t ext4 -b 4096 -L files "$(partition_name 1 "$1")" &&
		/usr/sbin/mkswap -q -L pages "$(partition_name 2 "$1")" && sync &&
		dd if="$1" of=/tmp/image bs=4096 conv=notrunc 2>/dev/null
}

# serve FILE [OPTION...]: a target inside of the machine that shows FILE as LUN 1 of $own_target.
own_portal=127.0.0.1:3260
own_target=iqn.2026-11.test.imgstream:image
serve() {
	# What an earlier one said does not count.
	rm -f /tmp/served
	imgstream-testtarget "$@" --target-name $own_target >/tmp/served 2>&1 &
	served=$!
	eventually grep -qs ' at ' /tmp/served
	may_wait 120
}

# It is gone, and its port is free again.
stop_serving() {
	may_wait 600
	kill -9 "$served"
	wait "$served" 2>/dev/null
}

# lay_out_own DEVICE [OPTION...]: as lay_out, of that target.
lay_out_own() {
	$guestdisk disk "$@" --portal $own_portal --target $own_target
}

# lay_out_contents: the disk "disk", with /tmp/image in the boot blocks as a migration puts them there.
lay_out_contents() {
	lay_out_own "$(disk disk)" && dd if=/tmp/image of="$(disk disk)" bs=4096 count=16 conv=notrunc,fsync 2>/dev/null
}

# Faults that are ordered through debugfs or fail-nth hit every allocation, also those that could wait for memory. Only on
# the debug kernel.
faults_anywhere() {
	for fault in failslab fail_page_alloc; do
		fault_set $fault ignore-gfp-wait N && fault_set $fault verbose 0 || return
	done
	fault_set fail_page_alloc ignore-gfp-highmem N && fault_set fail_page_alloc min-order 0
}

# From now on they hit only what the module's own functions, or those they call, allocate.
faults_in_module() {
	# Name, bytes, users, ..., address.
	read -r _ fault_bytes _ _ _ fault_start _ <<-EOF
		$(grep '^imgstream ' /proc/modules)
	EOF
	faults_within "$fault_start" "$(printf '0x%x' $((fault_start + fault_bytes)))"
}

# The same for a module that is not there yet: what its init function allocates.
faults_in_init() {
	faults_in do_one_initcall
}

# faults_in FUNCTION: what this function of the kernel, or of a module, or those it calls, allocate.
faults_in() {
	# shellcheck disable=SC2046
	faults_within $(text_of "$1")
}

# no_faults_in FUNCTION: nothing of that, wherever they are ordered.
no_faults_in() {
	# shellcheck disable=SC2046
	set -- $(text_of "$1")
	for fault in failslab fail_page_alloc; do
		fault_set $fault reject-start "$1" && fault_set $fault reject-end "$2" || return
	done
}

# text_of FUNCTION: where its code begins and ends.
text_of() {
	sort /proc/kallsyms | grep -EA1 " $1([[:space:]]|\$)" | sed 's/\([0-9a-f]*\) .*/0x\1/'
}

# faults_within START END: a function that begins there has to be on the stack.
faults_within() {
	for fault in failslab fail_page_alloc; do
		fault_set $fault require-start "$1" && fault_set $fault require-end "$2" || return
	done
}

# fault_set ATTRIBUTE NAME VALUE; fault_get ATTRIBUTE NAME
fault_set() {
	echo "$3" >"/sys/kernel/debug/$1/$2"
}
fault_get() {
	cat "/sys/kernel/debug/$1/$2"
}

# sweep STEP ARGUMENT...: makes the call with its first allocation failing, with its second one and so on; what that says is
# shown. There are too many to try them all, so $sweep_seed chooses: other ones each time. A test that sets it repeats a sweep.
sweep() {
	sweep_step=$1
	: "${sweep_seed:=$(date +%s)}"
	note "$sweep_step: seed $sweep_seed"
	# Who follows the results hears of it every minute or so.
	if { sweep_output=$($guestdisk faults --seed "$sweep_seed" ${LONG:+--thorough /proc/self/fd/4} "$@" 2>&1); } 4>&1; then
		note "$sweep_step: $sweep_output"
	else
		note "$sweep_output"
		return 1
	fi
}

# want_of_memory TEXT STEP ARGUMENT...: sweeps; nothing but that made a call fail.
want_of_memory() {
	want_text=$1
	shift
	sweep "$@" || { fail "$want_text" && return; }
	equal "$want_text" "" "$(printf '%s\n' "$sweep_output" | sed 1d | grep -v 'memory')"
}
