#!/bin/bash
# make check-gpu: the suite on a real device, a step after the other, each within its own limit and all within TIME
# seconds (570). Says what was run and what was not; exit status 0, 1 where a step failed, 77 without a device.
# GPU_CHECK_FAKE=1: a few cases over the fake driver of tests/cuda, which proves this script and no GPU.
# Environment: BUILD, OUT (a folder for the answers of the probe and the log), TIME, TEST_SEED, ONLY (a pattern of the
# names of steps).
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
out=${OUT:-$build/gpu/out}
left=${TIME:-570}
log=$out/check.log
begun=$(date +%s)
passed=0 failed=0 skipped=0
mkdir -p "$out"
: > "$log"
export TEST_DEVICE=gpu CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-32}
for v in $(compgen -e TUTTI_); do unset "$v"; done
[ "$(ulimit -l)" = unlimited ] || ulimit -l unlimited 2> /dev/null

cases=400 few=100 step=1 sizes="-b 4 -e 16M -f 64" fake=
if [ "${GPU_CHECK_FAKE:-0}" = 1 ]; then
	export LD_LIBRARY_PATH=$build/tests/cuda TEST_ARENA=64 TEST_QUICK=1 TEST_TIMEOUT_SCALE=10
	cases=32 few=16 step=1500 sizes="-b 4 -e 4K -f 64" fake=" over the FAKE driver, no GPU"
fi

time_left() {
	echo $((left - $(date +%s) + begun))
}

not_run() { # name, why
	skipped=$((skipped + 1))
	printf '%-52s not run: %s\n' "$1" "$2"
}

# Name, limit in seconds, settings and command. A program's own 77 is "not run".
step() {
	local name=$1 limit=$2 start status
	shift 2
	[[ $name =~ ${ONLY:-.} ]] || return
	[ "$(time_left)" -lt "$limit" ] && limit=$(time_left)
	if [ "$limit" -lt 5 ]; then
		not_run "$name" "no time left of ${TIME:-570} s"
		return
	fi
	start=$(date +%s)
	echo "==== $name: $*" >> "$log"
	{ timeout -k 5 "$limit" env "$@" < /dev/null; } > "$out/step" 2>&1
	status=$?
	cat "$out/step" >> "$log"
	if [ $status -eq 77 ]; then
		not_run "$name" "$(tail -n 1 "$out/step")"
	elif [ $status -eq 0 ]; then
		passed=$((passed + 1))
		printf '%-52s ok %4d s  %s\n' "$name" $(($(date +%s) - start)) "$(grep -E '^[0-9]+ passed' "$out/step" | tail -n 1)"
	else
		failed=$((failed + 1))
		printf '%-52s FAIL %4d s, status %d%s\n' "$name" $(($(date +%s) - start)) $status \
			"$([ $status -eq 124 ] && echo " (no end within $limit s)")"
		grep -vE '^ *$' "$out/step" | tail -n 15 | sed 's/^/    /'
	fi
}

perf() { # name, processes, threads, further options
	local name=$1 processes=$2 threads=$3
	shift 3
	step "perf, $name, $processes x $threads ranks" 60 "$build/bin/tutti-run" -n "$processes" \
		"$build/bin/all_reduce_perf" -t "$threads" -n 2 -w 1 "$@"
}

# shellcheck disable=SC2206
sizes=($sizes)

# ---- 1. where
{
	date -u +%F
	git rev-parse --short HEAD 2> /dev/null
	uname -r
	nvidia-smi 2> /dev/null | head -n 20
	nvcc --version 2> /dev/null | tail -n 2
	df -h /dev/shm | tail -n 1
} > "$out/where" 2>&1
cat "$out/where" >> "$log"

# ---- 2. the probe
timeout -k 5 240 "$build/bin/tutti-gpu-probe" > "$out/probe" 2>&1
if [ $? -eq 77 ]; then
	echo "check-gpu: not run, as there is no GPU here: $(sed -n 's/^host.cuda: //p' "$out/probe")"
	exit 77
fi
printf 'check-gpu%s: %s\n' "$fake" "$(sed -n 's/^device.name: //p' "$out/probe")"
printf '%-52s %s answers, in %s\n' "tutti-gpu-probe" "$(grep -c . "$out/probe")" "$out/probe"

# ---- 3. the kernels' bits
step "kernels against the host's bits" 120 TEST_STEP=$step "$build/gpu/bits"

# ---- 4. ranks as threads, then as processes: device and host buffers mixed
for n in 1 2 3 4 8; do
	step "random collectives, $n threads" 45 TEST_RANKS=$n TEST_CASES=$((2 * cases)) \
		"$build/gpu/collective/random" "fake device, threads"
done
for n in 2 4; do
	step "random collectives, $n processes" 45 TEST_RANKS=$n TEST_CASES=$cases \
		"$build/gpu/collective/random" "fake device, processes over shm"
done
step "random collectives, 2 processes over tcp" 45 TEST_RANKS=2 TEST_CASES=$few \
	"$build/gpu/collective/random" "fake device, processes over tcp"

# ---- graphs: replays, then what is refused
step "graph replay" 60 "$build/gpu/cuda/graphs" replay
step "graph replay, schedules as blocks" 60 TUTTI_CUDA_DEVICE_DRIVEN=1 "$build/gpu/cuda/graphs" replay
step "graphs, refusals and ends" 60 "$build/gpu/cuda/graphs" refused abort beside

# ---- 5. order, groups, abort, dead peers; what the suite's own memory cannot do is left out
"$build/gpu/collective/device" --list > "$out/names" 2> /dev/null
while read -r name; do
	case $name in *memory*) continue ;; esac
	step "$name" 40 "$build/gpu/collective/device" "$name"
done < "$out/names"

# ---- 6. the perf programs' data check, several ranks on one device
perf "device memory" 1 1 --memory cuda "${sizes[@]}"
perf "device memory, all types" 1 2 --memory cuda -b 4K -e 4K -d all -o all
perf "device memory" 1 8 --memory cuda "${sizes[@]}"
perf "device memory" 4 1 --memory cuda "${sizes[@]}"
perf "managed memory" 1 2 --memory managed "${sizes[@]}"
perf "pinned memory" 2 1 --memory pinned "${sizes[@]}"
perf "registered" 1 2 --memory cuda -R 1 "${sizes[@]}"
if [ -s "$build/obj/src/cuda_kernels.fatbin" ]; then
	perf "as a graph" 1 4 --memory cuda -G 5 "${sizes[@]}"
fi
step "copies of our kernel" 60 "$build/bin/gpu_copy_perf" -b 16 -e 1M -f 16 -n 2

# ---- 7. once more under the settings that users have
for setting in CUDA_LAUNCH_BLOCKING=1 CUDA_DEVICE_MAX_CONNECTIONS=1 CUDA_MODULE_LOADING=LAZY \
	CUDA_MODULE_LOADING=EAGER; do
	step "4 threads, $setting" 30 $setting TEST_RANKS=4 TEST_CASES=$((4 * few)) \
		"$build/gpu/collective/random" "fake device, threads"
	step "2 processes, $setting" 30 $setting TEST_RANKS=2 TEST_CASES=$few \
		"$build/gpu/collective/random" "fake device, processes over shm"
done

# ---- 8. compute-sanitizer, where it is and works
if [ -n "$fake" ] || ! command -v compute-sanitizer > /dev/null; then
	not_run "compute-sanitizer memcheck" "it is not here"
elif ! timeout 60 compute-sanitizer --tool memcheck "$build/bin/gpu_copy_perf" -b 16 -e 16 -n 1 > "$out/step" 2>&1; then
	not_run "compute-sanitizer memcheck" "it does not work here: $(tail -n 1 "$out/step")"
else
	step "memcheck, kernels" 120 TEST_STEP=512 compute-sanitizer --tool memcheck --error-exitcode 9 "$build/gpu/bits"
	step "memcheck, 2 threads" 120 compute-sanitizer --tool memcheck --error-exitcode 9 --target-processes all \
		"$build/bin/all_reduce_perf" -t 2 --memory cuda -b 4 -e 4K -f 32 -n 1 -w 1
fi

rm -f "$out/step" "$out/names"
echo "$passed passed, $failed failed, $skipped not run; $(($(date +%s) - begun)) s; all output in $log"
[ $failed -eq 0 ]
