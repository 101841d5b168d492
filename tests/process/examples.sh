#!/bin/bash
# Every example runs and finds its own result right: threads alone, processes under tutti-run, MPI where it is
# installed. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
export LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
. tests/harness/checks.sh
limit=60

for example in "$build"/examples/[0-9]*; do
	[ -x "$example" ] || continue
	name=$(basename "$example")
	case $name in
	*.d) ;;
	01_* | 03_*) try 0 "$example" ;;
	*)
		try 0 "$build/bin/tutti-run" -n 1 "$example"
		try 0 "$build/bin/tutti-run" -n 4 -l "$example"
		;;
	esac
done
# Over a driver of the tests, that its buffers are on a device.
try 0 env LD_LIBRARY_PATH="$build/tests/cuda:$LD_LIBRARY_PATH" "$build/bin/tutti-run" -n 3 \
	"$build/examples/09_train_on_device"
[ "$(grep -c 'in device memory, device 0' "$out")" -eq 3 ]
verdict "the buffers of three ranks are on the device" $?
# Its schedule is the one that runs.
gives 0 '3 ranks: TUTTI_SCHEDULE_FILE decides [1-9]' env TUTTI_LOG=plan:info "$build/bin/tutti-run" -n 3 \
	"$build/examples/08_own_schedule"
[ $passed -gt 0 ] || { echo "FAIL no examples under $build/examples"; failed=1; }

# An example of the sources that was not built would go unnoticed otherwise.
for source in examples/[0-9]*.c; do
	name=$(basename "$source" .c)
	[ -x "$build/examples/$name" ] || { echo "FAIL $name was not built"; failed=$((failed + 1)); }
done

# The id by MPI_Bcast, with each MPI there is.
for mpi in openmpi mpich; do
	[ -x "$(command -v "mpicc.$mpi")" ] || continue
	"mpicc.$mpi" -std=c17 -Iinclude examples/mpi/05_mpi_id.c -L"$build/lib" -ltutti -o "$work/$mpi" ||
		{ echo "FAIL 05_mpi_id with $mpi: does not compile"; failed=$((failed + 1)); continue; }
	options=
	[ $mpi = openmpi ] && options="--oversubscribe $([ "$(id -u)" -eq 0 ] && echo --allow-run-as-root)"
	# shellcheck disable=SC2086
	try 0 "mpirun.$mpi" $options -n 3 "$work/$mpi"
done

sum_up
