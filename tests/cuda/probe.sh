#!/bin/bash
# tutti-gpu-probe over the fake driver: answers where there are any, words where not, an end to what hangs; never
# figures of a GPU. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
# shellcheck source=tests/harness/checks.sh
. tests/harness/checks.sh
limit=200
probe=$build/bin/tutti-gpu-probe
fake=LD_LIBRARY_PATH=$build/tests/cuda

try 0 "$fake" "$probe" -t 60
has '^host.cuda: on: the driver'"'"'s CUDA 13.0'
has '^device.processors: 4$'
has '^device.dma_buf: (not offered: cuDeviceGetAttribute: |[01])'
has '^pointers.device: type 2, managed 0, device 0, '
has '^pointers.query_device: [0-9]+ ns -- '
has '^stream.of_garbage: not offered: cuStreamGetCtx: .*400'
has '^calls.host_function: [0-9.]+ us'
has '^words.pinned_words: [0-9.]+ us'
has '^words.device_words: (not offered: cuStream|[0-9.]+ us)'
has '^capture.memops: captured, and right when replayed twice'
has '^capture_calls.streams: joined, whole, and right when replayed'
has '^capture_calls.old_event.query: CUDA'
has '^capture_calls.old_event: recorded again'
has '^capture_calls.strict.event: not offered: cuEventCreate'
has '^waiting.free: waits -- '
has '^waiting.copy_behind_it: [0-9.]+ us$'
has '^callbacks.of_two_streams: run at the same time'
has '^dma_buf.of_alloc: (not offered: cuMemGetHandleForAddressRange: |descriptor )'
if [ -s "$build/obj/tools/gpu_kernels.fatbin" ]; then
	has '^calls.empty: [0-9.]+ us'
	has '^words.host_and_kernel: [0-9.]+ us'
	has '^queues.streams: more than 64'
	has '^first_lazy.copy_of_another_thread_during_wait: [0-9.]+ us'
	has '^processes.kernel_runs: [0-9.]+ us'
else
	has '^calls.empty: not offered: kernel gpu_empty: .* no kernels'
fi
! grep -E 'ended by signal|no answer within' "$out"
verdict "a question ended badly" $?

# What hangs is ended, and the next question is asked.
try 0 "$fake" FAKE_CUDA_HANG=cuStreamGetCtx "$probe" -t 1 stream callbacks
has '^stream.end: no answer within 1 s, at cuStreamGetCtx'
has '^callbacks.of_two_streams: run'
try 0 "$fake" FAKE_CUDA_MISSING=cuStreamCreate "$probe" callbacks
has '^callbacks.of_two_streams: not offered: cuStreamCreate: this driver has no such function'

try 77 "$fake" FAKE_CUDA_STUB=1 "$probe"
has '^host.cuda: off: .* is the stub'
try 1 "$fake" "$probe" no-such-question
try 2 "$fake" "$probe" -t none
try 0 "$probe" --list
has '^shared_words$'
sum_up
