#!/bin/bash
# The tests of device memory over the real CUDA kind and a driver that is a fake (fake_libcuda.c): with the kernels
# that the build has, without any, and with a driver from before CUDA 12. SPDX-License-Identifier: Apache-2.0
# shellcheck source=tests/harness/fake_cuda.sh
. "$(dirname "$0")/../harness/fake_cuda.sh"

run "kernels of the build" collective/device
run "kernels of the build" collective/random TEST_CASES=500
if [ -s "$build/obj/src/dev_kernels.fatbin" ]; then
	run "schedules as blocks" collective/random TUTTI_CUDA_DEVICE_DRIVEN=1 FAKE_CUDA_TELL=1 TEST_CASES=200
	has ' [1-9][0-9]* grids'
fi
# Ranks that are threads wait here for what another enqueues, which a load can hold up.
run "loads, 2 ms at most" collective/random FAKE_CUDA_LOADS=2 TEST_CASES=60
run "no kernels" collective/random FAKE_CUDA_NO_IMAGE=1 TEST_CASES=200
run "pinned memory near the device" collective/random FAKE_CUDA_ATTRIBUTES=134=0 FAKE_CUDA_NEAR=1 TEST_QUICK=1
run "CUDA 11.8" collective/random LD_LIBRARY_PATH="$build/tests/cuda/11" FAKE_CUDA_VERSION=11080 TEST_QUICK=1
sum_up
