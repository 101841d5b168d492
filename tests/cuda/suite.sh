#!/bin/bash
# The tests of device memory over the real CUDA kind and a driver that is a fake (fake_libcuda.c): with the kernels
# that the build has, without any, and with a driver from before CUDA 12. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
good=0 bad=0
export TEST_DEVICE=cuda

run() { # words for people, folder of the driver, program, settings...
	local words=$1 driver=$2 program=$3
	shift 3
	if env "$@" LD_LIBRARY_PATH="$driver" "$build/tests/collective/$program" > "$out" 2>&1; then
		good=$((good + 1))
	else
		bad=$((bad + 1))
		echo "FAIL $program, $words"
		tail -n 40 "$out"
	fi
}

run "kernels of the build" "$build/tests/cuda" device
run "kernels of the build" "$build/tests/cuda" random TEST_CASES=500
if [ -s "$build/obj/src/dev_kernels.fatbin" ]; then
	run "schedules as blocks" "$build/tests/cuda" random TUTTI_CUDA_DEVICE_DRIVEN=1 FAKE_CUDA_TELL=1 TEST_CASES=200
	grep -q ' [1-9][0-9]* grids' "$out" || { echo "FAIL there were no grids"; bad=$((bad + 1)); }
fi
# Ranks that are threads wait here for what another enqueues, which a load can hold up.
run "loads, 2 ms at most" "$build/tests/cuda" random FAKE_CUDA_LOADS=2 TEST_CASES=60
run "no kernels" "$build/tests/cuda" random FAKE_CUDA_NO_IMAGE=1 TEST_CASES=200
run "pinned memory near the device" "$build/tests/cuda" random FAKE_CUDA_ATTRIBUTES=134=0 FAKE_CUDA_NEAR=1 TEST_QUICK=1
run "CUDA 11.8" "$build/tests/cuda/11" random FAKE_CUDA_VERSION=11080 TEST_QUICK=1
echo "$good passed, $bad failed"
[ $bad -eq 0 ]
