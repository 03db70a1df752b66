# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the scripts share: where things are, how to speak, how to be root without being it.

set -euo pipefail

# Where chroot and mount are, which a user's own path may lack.
PATH=$PATH:/usr/sbin:/sbin
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
cache=${IMGSTREAM_CACHE:-$home/.cache/imgstream}
build=${IMGSTREAM_BUILD:-$top/build}
mkdir -p "$cache" "$build"
cache=$(cd "$cache" && pwd -P)
build=$(cd "$build" && pwd -P)
export IMGSTREAM_CACHE=$cache IMGSTREAM_BUILD=$build IMGSTREAM_JOBS=${IMGSTREAM_JOBS:-$(($(nproc) + 1))}

say() {
	printf 'imgstream: %s\n' "$*" >&2
}

die() {
	say "$*"
	exit 1
}

# hash_of FILE...: 12 hexadecimal digits that change when a file's contents change.
hash_of() {
	cat "$@" | sha256sum | cut -c1-12
}

# words_of FILE: its words without the comments.
words_of() {
	sed 's/#.*//' "$1" | xargs -n1
}

# in_namespace COMMAND...: as root of a mount and a PID namespace of its own; everything it started ends with it.
in_namespace() {
	local user=()
	if [ "$(id -u)" != 0 ]; then
		command -v newuidmap >/dev/null ||
			die "newuidmap is missing: install uidmap (as root: apt-get install uidmap)"
		user=(--user --map-root-user --map-auto)
	fi
	unshare "${user[@]}" --mount --pid --fork --kill-child -- "$@"
}

# need_room DIRECTORY GIB: ends with a sentence if less is free there.
need_room() {
	local free
	free=$(df --output=avail --block-size=1G "$1" | tail -n 1)
	[ "$free" -ge "$2" ] ||
		die "this needs $2 GiB free in $1, and there are $((free)): make clean and make clean-cache remove what older versions left"
}

# need_namespace: ends with a sentence where in_namespace cannot work.
need_namespace() {
	in_namespace true ||
		die "no mount and PID namespace can be made here: run as root, or where users may make namespaces"
}

# kernel_flavor: which kernel to build for and to boot: Debian's own (stock), one with every detector on (debug), or that one
# with more file systems (debug-long).
kernel_flavor() {
	case ${IMGSTREAM_FLAVOR:-stock} in
	stock | debug | debug-long) printf '%s\n' "${IMGSTREAM_FLAVOR:-stock}" ;;
	*) die "KERNEL=$IMGSTREAM_FLAVOR: stock, debug or debug-long is possible" ;;
	esac
}

# debug_config: the configuration of a debug kernel.
debug_config() {
	cat "$top/scripts/debug.config"
	[ "$(kernel_flavor)" != debug-long ] || cat "$top/scripts/debug-long.config"
}
