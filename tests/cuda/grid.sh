#!/bin/bash
# tests/cuda/grid.c with the fake driver. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}

if [ ! -s "$build/obj/src/dev_kernels.fatbin" ]; then
	echo "skipped, as the build has no kernels"
	exit 0
fi
TEST_DEVICE=cuda LD_LIBRARY_PATH="$build/tests/cuda" "$build/tests/cuda/grid"
