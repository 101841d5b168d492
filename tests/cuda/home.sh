#!/bin/bash
# tests/cuda/home.c with the fake driver to be found: with kernels, and by way of the host.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
good=0 bad=0
export TEST_DEVICE=cuda LD_LIBRARY_PATH=$build/tests/cuda TUTTI_PAIR_PROBE=$build/bin/tutti-pair-probe

for no_image in 0 1; do
	if out=$(FAKE_CUDA_NO_IMAGE=$no_image "$build/tests/cuda/home" 2>&1); then
		good=$((good + 1))
	else
		bad=$((bad + 1))
		echo "FAIL home, FAKE_CUDA_NO_IMAGE=$no_image:"
		echo "$out" | tail -n 40
	fi
done
echo "$good passed, $bad failed"
[ $bad -eq 0 ]
