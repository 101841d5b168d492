#!/bin/bash
# make bench-gpu: AllReduce of ranks that share one device, beside what a copy kernel reaches there in the same run, as
# a table for docs/benchmarking.md. busbw of p ranks on one device cannot pass B (p-1)/p^2, where B are the bytes that
# the copy kernel reads and writes a second: 2pS of them are moved. Exit status 77 without a device.
# GPU_CHECK_FAKE=1: small, over the fake driver, for the script's sake. Environment: BUILD, OUT, TIME (570 seconds).
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
out=${OUT:-$build/gpu/out}
left=${TIME:-570}
begun=$(date +%s)
bad=0
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
mkdir -p "$out"
: > "$out/bench.log"
for v in $(compgen -e TUTTI_); do unset "$v"; done
export CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-32}

ranks="2 4 8" most=1073741824 small=65536 copies="-b 256M -e 1G -f 2" iters=100 big=5 load=64M words=
if [ "${GPU_CHECK_FAKE:-0}" = 1 ]; then
	export LD_LIBRARY_PATH=$build/tests/cuda
	ranks=2 most=65536 small=4096 copies="-b 16K -e 64K -f 2" iters=3 big=2 load=64K words=" (the FAKE driver: no GPU's figures)"
fi

limit() { # at most so many seconds
	local now=$((left - $(date +%s) + begun))
	echo $((now < $1 ? (now > 1 ? now : 1) : $1))
}

# shellcheck disable=SC2086
if ! timeout -k 5 "$(limit 60)" "$build/bin/gpu_copy_perf" $copies > "$raw/copy" 2>&1; then
	grep -q 'not run' "$raw/copy" && { cat "$raw/copy"; echo "bench-gpu: not run, as there is no GPU here"; exit 77; }
	cat "$raw/copy"
	exit 1
fi
B=$(awk '!/^#/ && $3 > best { best = $3 } END { print best }' "$raw/copy")
cat "$raw/copy" >> "$out/bench.log"
name=$(sed -n 's/^# Copies on device 0, //p' "$raw/copy")

# The rows of a perf program: size, time, busbw. Name, processes, threads, options.
measure() {
	local file=$raw/$1 status processes=$2 threads=$3
	shift 3
	timeout -k 5 "$(limit 60)" "$build/bin/tutti-run" -n "$processes" "$build/bin/all_reduce_perf" -t "$threads" \
		--memory cuda -c 0 "$@" > "$file" 2>&1 < /dev/null
	status=$?
	{ echo "==== $(basename "$file"): status $status"; cat "$file"; } >> "$out/bench.log"
	[ $status -eq 0 ] && return
	bad=1
	echo "FAILED: $(basename "$file"): $(grep -v '^#' "$file" | tail -n 1)" >&2
}

each() { # name, processes, threads
	local p=$(($2 * $3))
	measure "$1.small" "$2" "$3" -b 8 -e $small -f 8 -n $iters
	measure "$1.one" "$2" "$3" -b 8 -e 8 -n $iters -z 1
	[ "$2" = 1 ] && [ -s "$build/obj/src/cuda_kernels.fatbin" ] &&
		measure "$1.graph" "$2" "$3" -b 8 -e 8 -n $iters -G $big
	measure "$1.large" "$2" "$3" -b $((small * 4)) -e $((most * 2 / p)) -f 4 -n $big -w 2
}

for p in $ranks; do
	each "threads$p" 1 $p
	each "processes$p" $p 1
done
measure load 1 4 -b $load -e $load -n 20 -w 2 --load

table() { # name, words, ranks
	local rows
	rows=$(cat "$raw/$1.small" "$raw/$1.large" 2> /dev/null | grep -E '^ +[0-9]')
	echo
	echo "$2: one call of 8 B $(awk '/^ +8 / { print $6 }' "$raw/$1.one" 2> /dev/null) us, waited for"
	[ -s "$raw/$1.graph" ] && echo "In a graph of $iters of them: $(awk '/^ +8 / { print $6 }' "$raw/$1.graph") us"
	echo
	echo "| size | us | busbw GB/s | of B (p-1)/p^2 |"
	echo "|---|---|---|---|"
	echo "$rows" | awk -v b="$B" -v p="$3" 'NF > 7 { printf "| %d | %s | %s | %.0f %% |\n", $1, $6, $8,
		100 * $8 / (b * (p - 1) / (p * p)) }'
}

{
	echo "Measured $(date -u +%F), commit $(git rev-parse --short HEAD 2> /dev/null), $name$words. The copy kernel reads"
	echo "and writes B = $B GB/s."
	for p in $ranks; do
		table "threads$p" "AllReduce of float, $p ranks as threads on one device" $p
		table "processes$p" "AllReduce of float, $p ranks as processes on one device" $p
	done
	echo
	echo "Multiply-adds on the device beside AllReduce of 4 ranks, $load each:"
	sed -n 's/^# Load beside *: //p' "$raw/load"
} > "$out/bench.md"
cat "$out/bench.md"
echo
echo "$(($(date +%s) - begun)) s; the table is in $out/bench.md, the programs' output in $out/bench.log"
exit $bad
