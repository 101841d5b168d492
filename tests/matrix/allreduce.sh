#!/bin/bash
# All types and operators of AllReduce, checked: 1 to 8 ranks, 4 B to 4 MiB, over shm, over tcp and as threads;
# 64 MiB for float and bfloat16, with all operators. A flipped bit must be seen in each of these places.
# Some minutes on two cores: `make check-long-matrix`. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${BUILD:-build}/bin
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 results=0
unset TUTTI_PERF_CORRUPT TUTTI_TRANSPORTS OMPI_COMM_WORLD_RANK PMI_RANK

# way, ranks, arguments...: the output is in $scratch/out and err
perf() {
	local way=$1 n=$2
	shift 2
	if [ "$way" = threads ]; then
		timeout -k 5 900 "$bin/all_reduce_perf" -t "$n" -n 1 -w 0 -c 1 "$@"
	else
		TUTTI_TRANSPORTS=$way timeout -k 5 900 "$bin/tutti-run" -n "$n" "$bin/all_reduce_perf" -n 1 -w 0 \
			-c 1 "$@"
	fi > "$scratch/out" 2> "$scratch/err"
}

bad() { # name, status
	failed=$((failed + 1))
	echo "FAIL $1: status $2"
	tail -n 15 "$scratch/out" "$scratch/err" | sed 's/^/    /'
}

# name, rows that the tables must have, then as for perf. Each row is two results, out of place and in place.
# Nothing may be logged.
right() {
	local name=$1 rows=$2 status start=$SECONDS
	shift 2
	perf "$@"
	status=$?
	if [ $status -ne 0 ] || [ -s "$scratch/err" ] ||
		! grep -q '^# Out of bounds values : 0 OK$' "$scratch/out" ||
		! awk -v rows="$rows" '!/^#/ && NF { n++; if (NF != 13 || $9 != 0 || $13 != 0) bad++ }
			END { exit !(n == rows && !bad) }' "$scratch/out"; then
		bad "$name" $status
		return
	fi
	passed=$((passed + 1)) results=$((results + 2 * rows))
	printf '%-44s %4d results, 0 wrong, %3d s\n' "$name" $((2 * rows)) $((SECONDS - start))
}

seen() { # a flipped bit: way, ranks
	local status
	TUTTI_PERF_CORRUPT=1 perf "$1" "$2" -b 1K -e 1K
	status=$?
	if [ $status -ne 1 ] || ! grep -q FAILED "$scratch/out"; then
		bad "$1, $2 ranks: a flipped bit" $status
		return
	fi
	passed=$((passed + 1))
}

for way in shm tcp threads; do
	for n in 1 2 3 5 8; do
		right "$way, $n ranks, all types, 4 B to 4 MiB" 432 $way $n -b 4 -e 4M -f 16 -d all -o all
		for type in float bfloat16; do
			right "$way, $n ranks, $type, 64 MiB" 6 $way $n -b 64M -e 64M -d $type -o all
		done
		seen $way $n
	done
done
echo "$results results checked in $SECONDS s"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
