#!/bin/bash
# tests/cuda/home.c with the fake driver to be found: with kernels, and by way of the host.
# SPDX-License-Identifier: Apache-2.0
# shellcheck source=tests/harness/fake_cuda.sh
. "$(dirname "$0")/../harness/fake_cuda.sh"

run "kernels of the build" cuda/home
run "no kernels" cuda/home FAKE_CUDA_NO_IMAGE=1
sum_up
