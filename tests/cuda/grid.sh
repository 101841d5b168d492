#!/bin/bash
# tests/cuda/grid.c with the fake driver. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}

if [ ! -s "$build/obj/src/dev_kernels.fatbin" ]; then
	echo "skipped, as the build has no kernels"
	exit 0
fi
export FAKE_CUDA_DEVICES=4 TEST_DEVICES=4 TUTTI_PAIR_PROBE=$build/bin/tutti-pair-probe
TEST_DEVICE=cuda LD_LIBRARY_PATH="$build/tests/cuda" "$build/tests/cuda/grid"
