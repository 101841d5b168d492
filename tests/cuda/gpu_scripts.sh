#!/bin/bash
# make check-gpu and make bench-gpu do what they say, shown over the fake driver: steps pass and fail, are counted, and
# nothing is passed where there is no device. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
# shellcheck source=tests/harness/checks.sh
. tests/harness/checks.sh
limit=280
export OUT=$work/answers

try 77 LD_LIBRARY_PATH="$build/tests/cuda" FAKE_CUDA_STUB=1 tests/gpu/check.sh
has '^check-gpu: not run, as there is no GPU here: off: '
try 77 LD_LIBRARY_PATH="$build/tests/cuda" FAKE_CUDA_STUB=1 tests/gpu/bench.sh
has '^bench-gpu: not run, as there is no GPU here'

if [ -s "$build/obj/tools/gpu_kernels.fatbin" ]; then
	some='bits|8 threads|4 processes|graph|managed|abort|EAGER|memcheck'
	try 0 GPU_CHECK_FAKE=1 ONLY="$([ -n "${TEST_LONG:-}" ] || echo "$some")" tests/gpu/check.sh
	has '^check-gpu over the FAKE driver, no GPU: fake device 0'
	has '^kernels against the host.s bits +ok .* [0-9]+ passed, 0 failed'
	has '^random collectives, 8 threads +ok'
	has '^random collectives, 4 processes +ok'
	has '^graph replay +ok .* [1-9] passed, 0 failed'
	has '^graph replay, schedules as blocks +ok'
	has '^graphs, refusals and ends +ok'
	has '^perf, managed memory, 1 x 2 ranks +ok'
	has '^2 processes, CUDA_MODULE_LOADING=EAGER +ok'
	has '^compute-sanitizer memcheck +not run'
	has '^[0-9]+ passed, 0 failed, 1 not run'
	try 1 GPU_CHECK_FAKE=1 ONLY="collectives, 2" FAKE_CUDA_MISSING=cuStreamQuery tests/gpu/check.sh
	has '^random collectives, 2 threads +FAIL'
	try 0 GPU_CHECK_FAKE=1 tests/gpu/bench.sh
	has 'the FAKE driver: no GPU.s figures'
	has '^\| 65536 \| [0-9.]+ \| [0-9.]+ \| [0-9]+ % \|'
	has '^[0-9.e+]+ kernels/s alone, [0-9.e+]+ beside the calls'
fi
sum_up
