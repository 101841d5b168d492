#!/bin/bash
# Schedules of files under tutti-run: right results by hand written and imported ones, refusals, and what tutti-info
# --schedule says and writes. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${BUILD:-build}/bin
fixtures=tests/fixtures/sched
shared=${TEST_TOPOLOGIES:-../shared/topologies}/formats
. tests/harness/checks.sh
limit=120

run() { # file, ranks, program, arguments: right results, and the plan has used the file
	local file=$1 n=$2
	shift 2
	gives 0 '^# Out of bounds values : 0 OK$' env TUTTI_SCHEDULE_FILE="$file" TUTTI_LOG=plan:info \
		"$bin/tutti-run" -n "$n" "$bin/$1" "${@:2}" -n 2 -w 1 -c 1
	has "$n ranks: TUTTI_SCHEDULE_FILE decides [1-9]"
}

xml=1
"$bin/tutti-info" --schedule $fixtures/ring3.xml 2>&1 | grep -q 'XML cannot be read' && {
	xml=0
	echo "MSCCL: skipped, as there is no libexpat"
}

run $fixtures/star.txt 3 all_reduce_perf -b 4 -e 16M -f 8 -d float -o all
run $fixtures/star.txt 3 broadcast_perf -b 4 -e 4M -f 16 -r 2
"$bin/tutti-info" --schedule allreduce:dbtree:4 --as text > "$work/dbtree.txt"
run "$work/dbtree.txt" 4 all_reduce_perf -b 4 -e 4M -f 16
TUTTI_SCHEDULE_FILE=$fixtures/star.txt TUTTI_LOG=plan:warn gives 0 'decides 0 of the' \
	"$bin/tutti-run" -n 2 "$bin/all_reduce_perf" -b 4 -e 4 -n 1 -w 1

if [ $xml = 1 ]; then
	run $fixtures/ring3.xml 3 all_reduce_perf -b 4 -e 16M -f 8
	run $fixtures/pairs2.xml,$fixtures/halves2.xml 2 all_reduce_perf -b 4 -e 1M -f 8
	run $fixtures/pairs2.xml,$fixtures/halves2.xml 2 reduce_scatter_perf -b 4 -e 16M -f 8
	"$bin/tutti-info" --schedule reducescatter:ring:3 --as msccl > "$work/ring.xml"
	run "$work/ring.xml" 3 reduce_scatter_perf -b 4 -e 4M -f 16
	"$bin/tutti-info" --schedule $fixtures/pairs2.xml --as text > "$work/pairs.txt"
	gives 0 '^AllReduce pairs, 2 ranks: .*; 0 to 1048576 bytes; proved$' \
		"$bin/tutti-info" --schedule "$work/pairs.txt"
	sed 's/type="rrs"/type="rrx"/' $fixtures/ring3.xml > "$work/bad.xml"
	TUTTI_SCHEDULE_FILE=$work/bad.xml gives 1 'bad.xml:6: gpu 0 tb 0 step 1: type rrx' \
		"$bin/tutti-run" -n 3 "$bin/all_reduce_perf" -b 4 -e 4
	gives 1 'bad.xml:6: gpu 0 tb 0 step 1: type rrx' "$bin/tutti-info" --schedule "$work/bad.xml"
	if [ -d "$shared" ]; then
		run "$shared/msccl-allreduce-allpairs-8n-simple.xml" 8 all_reduce_perf -b 1M -e 8M -f 8
		run "$shared/msccl-all-reduce-ring-ll.xml" 16 all_reduce_perf -b 4 -e 8K -f 16
	else
		echo "MSCCL's own schedules: skipped, as there is no $shared (TEST_TOPOLOGIES)"
	fi
fi

gives 0 '^Broadcast fan, 3 ranks, root 2: 1 x 2 chunks, 2 lanes, up to 5 steps a rank; proved$' \
	"$bin/tutti-info" --schedule $fixtures/star.txt
export TUTTI_SCHEDULE_FILE=$fixtures/star.txt
gives 0 '^  -> star +no model +windows of ' "$bin/tutti-info" --explain allreduce:16K:3
has 'chosen: star, of .*star.txt in TUTTI_SCHEDULE_FILE$'
gives 0 'chosen: [a-z]+, the cheapest' "$bin/tutti-info" --explain allreduce:16M:3
gives 0 'chosen: fan, of .*which it has one; others: [a-z]+$' "$bin/tutti-info" --explain broadcast:1M:3
gives 0 '"chosen": "star", "file": "[^"]*star.txt", "why": "of ' "$bin/tutti-info" --json --explain allreduce:16K:3
TUTTI_SCHEDULE_FILE=/nowhere gives 1 'schedules of /nowhere cannot be read' \
	"$bin/tutti-info" --explain allreduce:16K:3
unset TUTTI_SCHEDULE_FILE
gives 2 'one collective' "$bin/tutti-info" --schedule $fixtures/star.txt --as msccl
gives 2 'no such file' "$bin/tutti-info" --schedule allreduce:ring
gives 2 'no such algorithm' "$bin/tutti-info" --schedule allreduce:rung:3
gives 2 'text or msccl' "$bin/tutti-info" --schedule $fixtures/star.txt --as nccl
gives 1 'unequal weight' "$bin/tutti-info" --schedule <(sed -n '/^Broadcast/,$p' $fixtures/star.txt) --as msccl
sum_up
