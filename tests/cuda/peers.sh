#!/bin/bash
# Device links over the fake driver: peers.c, and the tests of device memory with links on, by each way of sharing
# memory and by none; with blocks of the devices (TUTTI_CUDA_DEVICE_DRIVEN). SPDX-License-Identifier: Apache-2.0
# shellcheck source=tests/harness/fake_cuda.sh
. "$(dirname "$0")/../harness/fake_cuda.sh"
export TUTTI_DEVICE_LINKS=1 TUTTI_PAIR_DEADLINE=300 # a busy machine is no pair that stalls

two="FAKE_CUDA_DEVICES=2 TEST_DEVICES=2"
driven="FAKE_CUDA_DEVICES=4 TEST_DEVICES=4 TUTTI_CUDA_DEVICE_DRIVEN=1"
# shellcheck disable=SC2086
{
	[ -n "${TEST_SANITIZE:-}" ] || run "the fake" cuda/ipc # each of its tests needs a process of its own
	run "links by themselves" cuda/links $two
	run "one device" cuda/peers TEST_DEVICES=1
	run "two devices" cuda/peers $two
	run "two devices, legacy handles" cuda/peers $two FAKE_CUDA_VMM=0
	run "handles that do not open" cuda/peers $two FAKE_CUDA_VMM=0 FAKE_CUDA_OPEN=208 TUTTI_LOG=none
	run "two devices that do not reach each other" cuda/peers $two FAKE_CUDA_PEERS=0 TUTTI_LOG=none
	run "a pair that spoils what it copies" cuda/peers $two FAKE_CUDA_CORRUPT=1 TUTTI_LOG=none
	run "a pair that stalls" cuda/peers $two FAKE_CUDA_STALL=1 TUTTI_PAIR_DEADLINE=0.5 TUTTI_LOG=none
	run "nothing can be shared" cuda/peers $two FAKE_CUDA_VMM=0 FAKE_CUDA_IPC=0 TEST_LINKS=0 TUTTI_LOG=none
	long "a device each, by blocks" cuda/peers $driven
	run "a device each, by blocks" cuda/driven $driven
	long "a device each, by blocks, legacy handles" cuda/peers $driven FAKE_CUDA_VMM=0
	run "a rank is killed, by blocks, legacy handles" cuda/driven $driven FAKE_CUDA_VMM=0 TEST_ONLY=killed
	long "processes on one device do not wait in blocks" cuda/peers TEST_DEVICES=1 TUTTI_CUDA_DEVICE_DRIVEN=1
	run "two devices" collective/device $two
	run "two devices" collective/random $two TEST_CASES=200
	# Ranks of one process would wait for each other's calls.
	run "one queue of the hardware, loads that wait" cuda/peers TEST_DEVICES=1 TEST_ONLY=processes \
		FAKE_CUDA_QUEUES=1 FAKE_CUDA_LOADS=60000
	long "one queue of the hardware, launches that wait" cuda/peers TEST_DEVICES=1 TEST_ONLY=processes \
		FAKE_CUDA_QUEUES=1 FAKE_CUDA_LAUNCH_BLOCKING=1
	long "a device each, by blocks" collective/random $driven TEST_RANKS=4 TEST_CASES=200 FAKE_CUDA_TELL=1
	[ -z "${TEST_LONG:-}" ] || has ' [1-9][0-9]* kernels of one rank'
	run "one device, with host ranks" collective/random TEST_DEVICES=1 TEST_HOST_RANKS=3 TEST_CASES=100
	long "two devices, legacy handles, with host ranks" collective/random $two FAKE_CUDA_VMM=0 TEST_HOST_RANKS=4 \
		TEST_CASES=100
}
sum_up
