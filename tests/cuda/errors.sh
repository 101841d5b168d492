#!/bin/bash
# tests/cuda/errors.c, with the fake driver to be found, not loaded; what tutti-info says of drivers.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
good=0 bad=0
export TEST_DEVICE=cuda

check() { # words, pattern or nothing, command
	local words=$1 pattern=$2 out
	shift 2
	if out=$(env "$@" 2>&1) && grep -q "$pattern" <<< "$out"; then
		good=$((good + 1))
	else
		bad=$((bad + 1))
		echo "FAIL $words:"
		echo "$out" | tail -n 40
	fi
}

fake=LD_LIBRARY_PATH=$build/tests/cuda
info=$build/bin/tutti-info
check "the tests of errors.c" '' "$fake" "$build/tests/cuda/errors"
check "a driver" "^cuda  *on: the driver's CUDA 13.0, 2 devices (the first: fake device 0)" "$fake" FAKE_CUDA_DEVICES=2 "$info"
check "an old driver" '^cuda  *on: .*CUDA 11.8.*no kernels, as .*\|built without kernels' \
	LD_LIBRARY_PATH="$build/tests/cuda/11" FAKE_CUDA_VERSION=11080 "$info"
check "no code for a device" 'no kernels.*build with CUDA_SM\|built without kernels' "$fake" FAKE_CUDA_NO_IMAGE=1 "$info"
check "a stub" '^cuda  *off: .* is the stub' "$fake" FAKE_CUDA_STUB=1 "$info"
check "a stub, as JSON" '"cuda": {"on": false, "words": "off: ' "$fake" FAKE_CUDA_STUB=1 "$info" --json
echo "$good passed, $bad failed"
[ $bad -eq 0 ]
