#!/bin/bash
# The perf programs find right results right and wrong ones wrong, and say so by their exit status.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${BUILD:-build}/bin
. tests/harness/checks.sh
limit=100
unset OMPI_COMM_WORLD_RANK PMI_RANK

ok='^# Out of bounds values : 0 OK$'
for n in 2 3 5; do
	gives 0 "$ok" "$bin/tutti-run" -n $n "$bin/all_reduce_perf" -b 4 -e 1M -f 8 -n 2 -w 1 -c 1
	gives 0 "$ok" "$bin/tutti-run" -n $n "$bin/all_reduce_perf" -b 1000 -e 1000 -d all -o all -n 1 -w 1 -c 1
done
# Each row has 13 columns, none of the 72 combinations is missing, and #wrong is 0 in all of them.
gives 0 "$ok" "$bin/all_reduce_perf" -t 3 -b 4K -e 4K -d all -o all -n 1 -w 1
if ! awk '!/^#/ { rows++; if (NF != 13 || $9 != 0 || $13 != 0) bad++ }
	END { exit !(rows == 72 && !bad) }' "$out"; then
	failed=$((failed + 1))
	echo "FAIL table of all types and operators:"
	grep -E 'not supported|FAIL' "$out"
fi
for program in all_gather reduce_scatter broadcast reduce; do
	[ -x "$bin/${program}_perf" ] || continue
	gives 0 "$ok" "$bin/tutti-run" -n 3 "$bin/${program}_perf" -b 12 -e 3M -f 16 -n 2 -w 1
	gives 0 "$ok" "$bin/${program}_perf" -t 3 -b 12 -e 12K -f 32 -n 2 -w 1 -r 2
	gives 1 'FAILED$' env TUTTI_PERF_CORRUPT=1 "$bin/tutti-run" -n 2 \
		"$bin/${program}_perf" -b 64 -e 64 -n 1 -w 1
done

gives 0 "Rank  5 Group" "$bin/tutti-run" -n 2 "$bin/all_reduce_perf" -t 3 -b 8 -e 8K -f 32 -n 2 -w 1
gives 0 "$ok" "$bin/all_reduce_perf" -t 2 -z 0 -b 8 -e 64K -f 16 -n 5 -w 1
gives 0 "$ok" "$bin/all_reduce_perf" -t 2 -b 1K -e 4K -i 1K -n 1 -w 0
gives 0 "$ok" "$bin/all_reduce_perf" -t 2 -b 0 -e 0 -n 1 -w 0
gives 0 "$ok" "$bin/tutti-run" -n 2 "$bin/all_reduce_perf" -R 1 -b 8 -e 4M -f 64 -n 1 -w 1
# A forced algorithm gives way where its messages are longer than the transport takes.
gives 0 "$ok" env TUTTI_ALGO=circulant TUTTI_TRANSPORTS=tcp "$bin/tutti-run" -n 2 "$bin/all_gather_perf" -b 40M -e 40M -n 1 -w 0
gives 0 "N/A" "$bin/all_reduce_perf" -t 2 -b 8 -e 8 -n 1 -c 0
gives 0 "stepfactor" "$bin/all_reduce_perf" -h

wrong='^ .* 1 +[0-9.]+ +[0-9.]+ +[0-9.]+ +1$'
for n in 2 3; do
	gives 1 "$wrong" env TUTTI_PERF_CORRUPT=1 "$bin/tutti-run" -n $n \
		"$bin/all_reduce_perf" -b 1K -e 1K -n 1 -w 1
done
gives 1 "$wrong" env TUTTI_PERF_CORRUPT=1 "$bin/all_reduce_perf" -t 2 -b 8 -e 8 -n 1

try 2 "$bin/all_reduce_perf" --nonsense
gives 2 "no such name" "$bin/all_reduce_perf" -d float17
gives 2 "a size like" "$bin/all_reduce_perf" -b 12Q

# Started by a launcher that tutti cannot ask: refused, and not N jobs of one rank each.
gives 1 "OMPI_COMM_WORLD_RANK=1" env OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 "$bin/all_reduce_perf" -b 8 -e 8
gives 1 "PMI_RANK=0" env PMI_RANK=0 PMI_SIZE=2 "$bin/all_reduce_perf" -b 8 -e 8
gives 0 "$ok" env OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 "$bin/all_reduce_perf" -t 2 -b 8 -e 8 -n 1
gives 0 "$ok" env OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 \
	"$bin/tutti-run" -n 2 "$bin/all_reduce_perf" -b 8 -e 8 -n 1

# torchrun's variables, with two processes started by hand.
port=$((20000 + RANDOM % 10000))
RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 \
	timeout 60 "$bin/all_reduce_perf" -b 8 -e 8 -n 1 > "$work/one" 2>&1 &
gives 0 "Rank  1 Group" env RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 \
	MASTER_PORT=$port LOCAL_RANK=0 LOCAL_WORLD_SIZE=2 "$bin/all_reduce_perf" -b 8 -e 8 -n 1
wait $! || { failed=$((failed + 1)); echo "FAIL torchrun's variables, rank 1"; cat "$work/one"; }
[ -s "$work/one" ] && { failed=$((failed + 1)); echo "FAIL rank 1 printed:"; cat "$work/one"; }

# The JSON is JSON and has what the table has.
gives 0 "$ok" "$bin/tutti-run" -n 2 "$bin/all_reduce_perf" -b 8 -e 1K -f 2 -n 2 -J "$work/j\"son"
if command -v python3 > /dev/null; then
	try 0 python3 - "$work/j\"son" << 'PY'
import json, sys
d = json.load(open(sys.argv[1]))
assert [r["size"] for r in d["results"]] == [8, 16, 32, 64, 128, 256, 512, 1024]
for r in d["results"]:
    assert r["type"] == "float" and r["redop"] == "sum" and r["count"] == r["size"] // 4
    for k in ("out_of_place", "in_place"):
        assert r[k]["wrong"] == 0 and r[k]["time_us"] > 0 and r[k]["busbw_gbs"] > 0
assert [r["rank"] for r in d["ranks"]] == [0, 1] and d["out_of_bounds"]["okay"] is True
PY
else
	grep -q '"average_bus_bandwidth_gbs"' "$work/j\"son" || failed=$((failed + 1))
fi

sum_up
