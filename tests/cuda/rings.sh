#!/bin/bash
# Ranks on eight devices in a cube mesh find its six rings and run them over device links, by queues and by blocks, with
# right results. SPDX-License-Identifier: Apache-2.0
# shellcheck source=tests/harness/fake_cuda.sh
. "$(dirname "$0")/../harness/fake_cuda.sh"
limit=100
bin=$build/bin
ok='^# Out of bounds values : 0 OK$'

# The machine of the fixture, with the bus ids of the fake driver's devices.
names=(06 07 0a 0b 85 86 89 8a)
for i in "${!names[@]}"; do
	echo "s/0000:${names[i]}:00\\.0/0000:1$i:00.0/g"
done > "$work/ids"
sed -f "$work/ids" tests/fixtures/topo/cube-mesh.topo > "$work/machine.topo"
fake=(FAKE_CUDA_DEVICES=8 TUTTI_DEVICE_LINKS=1 TUTTI_TOPO_FILE="$work/machine.topo" TUTTI_LOG=plan:info
	TUTTI_ALGO=ring)

for driven in 0 1; do
	for program in all_reduce all_gather reduce_scatter; do
		try 0 "${fake[@]}" TUTTI_CUDA_DEVICE_DRIVEN=$driven "$bin/tutti-run" -n 8 "$bin/${program}_perf" --memory cuda \
			-b 96 -e 3M -f 32 -n 2 -w 1
		has "$ok"
		has '8 ranks on 1 host, .* another order, 6 rings over links of devices, shape '
		has 'schedules proved for the shape of these 8 ranks'
	done
done
try 0 "${fake[@]}" "$bin/tutti-run" -n 4 "$bin/all_reduce_perf" --memory cuda -b 1M -e 1M -n 1 -w 1 # a quad
has '4 ranks on 1 host, .* rings over links of devices'
has "$ok"
try 0 "${fake[@]}" TUTTI_DEVICE_LINKS=0 "$bin/tutti-run" -n 4 "$bin/all_reduce_perf" --memory cuda -b 1M -e 1M -n 1 -w 1
has '4 ranks on 1 host, .* their own order, shape 0'
has "$ok"
sum_up
