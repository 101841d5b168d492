#!/bin/bash
# tutti-info --topo --hosts: what is predicted for several such hosts is what the formulas say where one can compute it
# by hand, and never better than the bound. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
info=$(realpath "${BUILD:-build}/bin/tutti-info")
# shellcheck source=tests/harness/checks.sh
. tests/harness/checks.sh
fixture=tests/fixtures/topo

# Eight GPUs with six links of 20 GB/s each: 6 rings, so 120 GB/s of busbw at best.
try 0 "$info" --topo $fixture/cube-mesh.topo --json --explain allreduce:1G --explain all_gather:1M
json 'd["hosts"]["count"] == 1 and d["hosts"]["ranks"] == 8 and d["hosts"]["links_bytes_per_s"] == 120e9'
json '[p["collective"] for p in d["predicted"]] == ["AllReduce", "AllGather"]'
json 'all(abs(p["bound"]["busbw_bytes_per_s"] / 120e9 - 1) < 1e-6 and p["bound"]["binds"] == "links" for p in d["predicted"])'
json 'abs(d["predicted"][0]["bound"]["seconds"] / (2 * 7 / 8 * 2**30 / 120e9) - 1) < 1e-6'
json 'abs(d["predicted"][1]["bound"]["seconds"] / (7 * 2**20 / 120e9) - 1) < 1e-6'
json 'd["predicted"][0]["ways"][0]["algorithm"] == "ring" and d["trees"]["rings"] == 6 and d["trees"]["bound"] == 6'
json 'abs(sum(t["rings"] for t in d["trees"]["parents"]) * 7 / 8 - 6) < 1e-9'

# Four hosts: four NICs of 12 GB/s. The vector leaves and enters each of them, less its own quarter.
try 0 "$info" --topo $fixture/cube-mesh.topo --json --hosts 4 --explain allreduce:1G
json 'd["hosts"]["ranks"] == 32 and d["hosts"]["nics_bytes_per_s"] == 48e9'
json 'abs(d["predicted"][0]["bound"]["seconds"] / (2 * 3 / 4 * 2**30 / 48e9) - 1) < 1e-6'
json 'd["predicted"][0]["bound"]["binds"] == "NICs" and "hier" in [w["algorithm"] for w in d["predicted"][0]["ways"]]'
json 'all(abs(w["seconds"] - w["latency_s"] - w["links_s"] - w["nics_s"]) < 1e-6 * w["seconds"] for w in d["predicted"][0]["ways"])'
json 'all(abs(w["busbw_bytes_per_s"] * w["seconds"] / (2 * 31 / 32 * 2**30) - 1) < 1e-6 for w in d["predicted"][0]["ways"])'
# A ring sends 2 x 31/32 of the vector over the NICs, and adds to it along the links.
json '[w["nics_s"] for w in d["predicted"][0]["ways"] if w["algorithm"] == "ring"][0] * 48e9 / 2**30 - 2 * 31 / 32 < 1e-6'

# Thousands of ranks, within seconds: nothing is enumerated.
try 0 timeout 2 "$info" --topo $fixture/cube-mesh.topo --hosts 1024 --explain allreduce:1G
has '^hosts +1024 with 8 ranks each \(GPUs\); in one 1.4 us, 120 GB/s along rings; between them 3 us, 48 GB/s each way$'
has '^AllReduce of 1 GiB, 8192 ranks on 1024 hosts: at best 44.7 ms, busbw 48.0[0-9]* GB/s \(NICs\)$'
has '^  -> [a-z]+ .* GB/s +[0-9]+ % .* (latency|links|NICs)$'
try 0 "$info" --topo $fixture/cube-mesh.topo --hosts 2
[ "$(grep -c '^AllReduce of' "$out")" -eq 6 ]
verdict "six sizes" $?

# Cores, where there are no GPUs; one rank is never busy.
try 0 "$info" --topo 'synthetic:package:2 l3:2 core:4 pu:1' --hosts 1 --explain broadcast:1M
has '^hosts +1 with 16 ranks each \(cores\)'
try 0 "$info" --topo 'synthetic:package:1 core:1 pu:1' --explain allreduce:1K --json
json 'd["predicted"][0]["bound"]["seconds"] == 0'

# What the file does not say is not made up.
try 1 "$info" --topo 'synthetic:package:2 core:4 pu:1' --hosts 2
has 'no NIC is listed'
printf 'tutti-topology 1\nnuma numa0\ngpu 0000:01:00.0 in numa0\ngpu 0000:02:00.0 in numa0\nnic 0000:03:00.0 in numa0\n' \
	> "$work/dark.topo"
try 1 "$info" --topo "$work/dark.topo" --hosts 2
has 'the speed of a NIC is not known'
echo 'port p in 0000:03:00.0 bw=12500' >> "$work/dark.topo"
try 1 "$info" --topo "$work/dark.topo" --hosts 1
has 'the speed of links is not known'
try 0 "$info" --topo "$work/dark.topo" --hosts 2
has 'taken as no limit'
has 'between them [1-9]' # a latency that is not said is the usual one
for bad in "--hosts 2" "--topo --hosts 0" "--topo --hosts x" "--topo --explain allreduce:8:2" "--topo --explain nothing:8"; do
	# shellcheck disable=SC2086
	try 2 "$info" $bad
done

# No algorithm of the model beats a bound, on any machine, collective and size.
cat > "$work/beaten.py" << 'END'
import json, sys
p = json.load(open(sys.argv[1]))["predicted"]
bad = [(q["collective"], q["bytes"], w["algorithm"]) for q in p for w in q["ways"]
       if w["seconds"] < q["bound"]["seconds"] * (1 - 1e-9)]
print(bad, len(p))
sys.exit(bool(bad) or not p)
END
asked=
for coll in allreduce allgather reducescatter broadcast reduce; do
	asked="$asked --explain $coll:8 --explain $coll:64K --explain $coll:64M"
done
shared=${TEST_TOPOLOGIES:-../shared/topologies}
for f in "$fixture"/* "$shared"/nccl/*topo*.xml "$shared"/rccl/*.xml "$shared"/hwloc/*.v2.xml; do
	for n in 1 3 64; do
		# shellcheck disable=SC2086
		"$info" --topo "$f" --json --hosts $n $asked > "$work/json" 2> /dev/null || continue
		python3 "$work/beaten.py" "$work/json" > "$out"
		verdict "$n x $f: faster than the bound" $?
	done
done
[ $passed -gt 40 ]
verdict "only $passed checks" $?

sum_up
