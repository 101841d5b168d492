#!/bin/bash
# Every example runs and finds its own result right: threads alone, processes under tutti-run, MPI where it is
# installed. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
export LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
passed=0 failed=0

try() { # name, command...
	local name=$1 status
	shift
	timeout -k 5 60 "$@"
	status=$?
	if [ $status -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL $name: status $status of: $*"
	fi
}

for example in "$build"/examples/[0-9]*; do
	[ -x "$example" ] || continue
	name=$(basename "$example")
	case $name in
	*.d) ;;
	01_* | 03_*) try "$name" "$example" ;;
	*)
		try "$name with 1 rank" "$build/bin/tutti-run" -n 1 "$example"
		try "$name with 4 ranks" "$build/bin/tutti-run" -n 4 -l "$example"
		;;
	esac
done
# Over a driver of the tests, that its buffers are on a device.
try "09_train_on_device over the fake driver" bash -c 'LD_LIBRARY_PATH=$2/tests/cuda:$LD_LIBRARY_PATH "$0" -n 3 "$1" |
	grep -c "in device memory, device 0" | grep -qx 3' "$build/bin/tutti-run" "$build/examples/09_train_on_device" "$build"
# Its schedule is the one that runs.
try "08_own_schedule is used" bash -c 'TUTTI_LOG=plan:info "$0" -n 3 "$1" 2>&1 |
	grep "3 ranks: TUTTI_SCHEDULE_FILE decides [1-9]"' "$build/bin/tutti-run" "$build/examples/08_own_schedule"
[ $passed -gt 0 ] || { echo "FAIL no examples under $build/examples"; failed=1; }

# An example of the sources that was not built would go unnoticed otherwise.
for source in examples/[0-9]*.c; do
	name=$(basename "$source" .c)
	[ -x "$build/examples/$name" ] || { echo "FAIL $name was not built"; failed=$((failed + 1)); }
done

# The id by MPI_Bcast, with each MPI there is.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for mpi in openmpi mpich; do
	[ -x "$(command -v "mpicc.$mpi")" ] || continue
	"mpicc.$mpi" -std=c17 -Iinclude examples/mpi/05_mpi_id.c -L"$build/lib" -ltutti -o "$scratch/$mpi" ||
		{ echo "FAIL 05_mpi_id with $mpi: does not compile"; failed=$((failed + 1)); continue; }
	options=
	[ $mpi = openmpi ] && options="--oversubscribe $([ "$(id -u)" -eq 0 ] && echo --allow-run-as-root)"
	# shellcheck disable=SC2086
	try "05_mpi_id with $mpi" "mpirun.$mpi" $options -n 3 "$scratch/$mpi"
done

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
