#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# bindgen-rules.sh KERNEL-TREE OUTPUT: copies the variables and the command that kernel's rust/Makefile runs bindgen
# with (from "bindgen_c_flags = ..." to the end of "cmd_bindgen = ...") to OUTPUT. Prints nothing when all is well.
set -eu

tree=$1
output=$2

awk '
	/^ifdef CONFIG_CC_IS_CLANG$/ && !found { held = $0; next }
	held != "" {
		if ($0 ~ /^bindgen_c_flags = /) { found = 1; print held }
		held = ""
	}
	found { print }
	found && /^ *cmd_bindgen = / { command = 1 }
	command && !/\\$/ { complete = 1; exit }
	END { exit !complete }
' "$tree/rust/Makefile" >"$output.new"

# An unchanged file keeps its time.
if cmp -s "$output.new" "$output"; then
	rm "$output.new"
else
	mv "$output.new" "$output"
fi
