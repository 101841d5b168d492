#!/bin/bash
# tests/cuda/graphs.c with the fake driver: one kernel for all ranks, and schedules as blocks.
# SPDX-License-Identifier: Apache-2.0
# shellcheck source=tests/harness/fake_cuda.sh
. "$(dirname "$0")/../harness/fake_cuda.sh"

run "one kernel" cuda/graphs
run "one kernel, launches that wait" cuda/graphs FAKE_CUDA_LAUNCH_BLOCKING=1 FAKE_CUDA_QUEUES=2 TEST_ONLY=replay
if [ -s "$build/obj/src/dev_kernels.fatbin" ]; then
	run "schedules as blocks" cuda/graphs TUTTI_CUDA_DEVICE_DRIVEN=1 FAKE_CUDA_TELL=1
	has ' [1-9][0-9]* grids'
fi
sum_up
