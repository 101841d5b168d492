#!/bin/bash
# The perf programs on memory of devices, over the fake driver with two: right results are found right and wrong ones
# wrong in every kind of memory, and what is not supported is refused. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
# shellcheck source=tests/harness/checks.sh
. tests/harness/checks.sh
limit=100
bin=$build/bin
fake=LD_LIBRARY_PATH=$build/tests/cuda
ok='^# Out of bounds values : 0 OK$'

for memory in cuda managed pinned; do
	try 0 "$fake" "$bin/all_reduce_perf" -t 3 --memory $memory -b 4 -e 256K -f 16 -n 2 -w 1
	has "$ok"
	has "$memory memory, on a stream"
	try 1 "$fake" TUTTI_PERF_CORRUPT=1 "$bin/all_reduce_perf" -t 2 --memory $memory -b 64 -e 64 -n 1 -w 1
	has 'Wrong values : 2 FAILED'
done
try 0 "$fake" FAKE_CUDA_DEVICES=2 "$bin/tutti-run" -n 2 "$bin/all_reduce_perf" -t 2 --memory cuda -b 4K -e 4K -d all \
	-o all -n 1 -w 1
has "$ok"
has '^#  Rank  0 .* device  0 fake device 0$'
has '^#  Rank  3 .* device  1 fake device 1$'
[ "$(grep -c -v '^#' "$out")" -eq 72 ]
verdict "72 rows of types and operators" $?
for program in all_gather reduce_scatter broadcast reduce; do
	try 0 "$fake" "$bin/${program}_perf" -t 3 --memory cuda -b 12 -e 12K -f 32 -n 2 -w 1
	has "$ok"
done
try 0 "$fake" "$bin/all_reduce_perf" -t 2 --memory cuda -R 1 -z 1 -b 4K -e 4K -n 2 -w 1
has "$ok"
has 'each call waited for'
try 0 "$fake" FAKE_CUDA_DEVICES=2 "$bin/all_reduce_perf" -g 2 --memory cuda -y 1 -b 4K -e 4K -n 2 -w 1
has 'nThread 1 nGpus 2 '
has 'on the default stream'
has "$ok"
try 0 "$bin/all_reduce_perf" -t 2 -G 0 -R 0 -g 1 -b 8 -e 8 -n 1
has "$ok"

try 2 "$bin/all_reduce_perf" -t 2 -G 5 -b 8 -e 8
has '-G N: graphs are of streams of a device'
try 2 "$bin/all_reduce_perf" -t 2 -R 2 -b 8 -e 8
has '-R 2: there are no symmetric windows'
try 2 "$bin/all_reduce_perf" --memory tape
has 'no such name'
try 2 "$bin/all_reduce_perf" --load -b 8 -e 8
has 'needs a device'
try 1 "$fake" FAKE_CUDA_STUB=1 "$bin/all_reduce_perf" -t 2 --memory cuda -b 8 -e 8
has '--memory cuda: cuInit: '

if [ -s "$build/obj/src/cuda_kernels.fatbin" ]; then
	for program in all_reduce reduce_scatter broadcast; do
		try 0 "$fake" "$bin/${program}_perf" -t 3 --memory cuda -G 4 -b 12 -e 12K -f 32 -n 5 -w 1
		has 'validation: 1 graph: 4$'
		has "$ok"
	done
	try 1 "$fake" "$bin/tutti-run" -n 2 "$bin/all_reduce_perf" --memory cuda -G 4 -b 8 -e 8
	has 'AllReduce: invalid usage: '
	has 'capture'
fi
if [ -s "$build/obj/tools/gpu_kernels.fatbin" ]; then
	try 0 "$fake" "$bin/all_reduce_perf" -t 2 --memory cuda --load -b 64K -e 64K -n 20 -w 1
	has '^# Load beside +: [0-9.e+]+ kernels/s alone, [0-9.e+]+ beside the calls, [0-9.]+ %'
	try 0 "$fake" "$bin/gpu_copy_perf" -b 16 -e 64K -f 64 -n 2
	has '^ +65536 +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +0$'
fi
try 77 "$fake" FAKE_CUDA_STUB=1 "$bin/gpu_copy_perf"
has 'not run: '
try 2 "$fake" "$bin/gpu_copy_perf" -b 12Q
sum_up
