#!/bin/bash
# What the fake driver shares between processes. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
good=0 bad=0
export TEST_DEVICE=cuda LD_LIBRARY_PATH=$build/tests/cuda

run() { # words for people, program, settings...
	local words=$1 program=$2
	shift 2
	if env "$@" "$build/tests/$program" > "$out" 2>&1; then
		good=$((good + 1))
	else
		bad=$((bad + 1))
		echo "FAIL $program, $words"
		tail -n 40 "$out"
	fi
}

run "the fake" cuda/ipc
echo "$good passed, $bad failed"
[ $bad -eq 0 ]
