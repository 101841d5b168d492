#!/bin/bash
# tests/cuda/errors.c, with the fake driver to be found, not loaded. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
TEST_DEVICE=cuda LD_LIBRARY_PATH=$build/tests/cuda exec "$build/tests/cuda/errors"
