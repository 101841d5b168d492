#!/bin/bash
# tests/cuda/graphs.c with the fake driver: one kernel for all ranks, and schedules as blocks.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
good=0 bad=0
export TEST_DEVICE=cuda LD_LIBRARY_PATH="$build/tests/cuda"

run() { # words, settings and program...
	local words=$1
	shift
	if env "$@" > "$out" 2>&1; then
		good=$((good + 1))
	else
		bad=$((bad + 1))
		echo "FAIL $words"
		tail -n 40 "$out"
	fi
}

run "one kernel" "$build/tests/cuda/graphs"
run "one kernel, launches that wait" FAKE_CUDA_LAUNCH_BLOCKING=1 FAKE_CUDA_QUEUES=2 "$build/gpu/cuda/graphs" replay
if [ -s "$build/obj/src/dev_kernels.fatbin" ]; then
	run "schedules as blocks" TUTTI_CUDA_DEVICE_DRIVEN=1 FAKE_CUDA_TELL=1 "$build/gpu/cuda/graphs"
	grep -q ' [1-9][0-9]* grids' "$out" || { echo "FAIL there were no grids"; bad=$((bad + 1)); }
fi
echo "$good passed, $bad failed"
[ $bad -eq 0 ]
