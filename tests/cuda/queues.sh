#!/bin/bash
# Ranks as threads on one device of the fake driver, one kernel for all: tests/cuda/queues.c, tests/collective/meet.c, and
# random collectives with one queue of the hardware for all streams, and with launches that wait until they are done.
# SPDX-License-Identifier: Apache-2.0
# shellcheck source=tests/harness/fake_cuda.sh
. "$(dirname "$0")/../harness/fake_cuda.sh"

run "queues and launches" cuda/queues
run "many queues" collective/meet
run "one queue" collective/meet FAKE_CUDA_QUEUES=1 TEST_ONE_DEVICE=1
if [ -s "$build/obj/src/cuda_kernels.fatbin" ]; then # without kernels ranks wait for each other on streams
	run "one queue" collective/random FAKE_CUDA_QUEUES=1 TEST_ONE_DEVICE=1 TEST_CASES=300
	run "three queues, launches that wait" collective/random FAKE_CUDA_QUEUES=3 FAKE_CUDA_LAUNCH_BLOCKING=1 \
		TEST_ONE_DEVICE=1 TEST_CASES=300
	run "loads that wait for streams" collective/meet FAKE_CUDA_LOADS=60000 TEST_ONE_DEVICE=1
	run "loads that wait for streams" collective/random FAKE_CUDA_LOADS=60000 TEST_ONE_DEVICE=1 TEST_CASES=300
fi
sum_up
