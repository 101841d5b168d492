#!/bin/bash
# The CUDA kernels: the same bits as the host's reductions (compiled for the host), and what ptxas said of them when
# they were built: all there for each kind of device, none with registers in memory. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
# shellcheck source=tests/harness/checks.sh
. tests/harness/checks.sh
limit=3000

if [ -x "$build/tests/cuda/kernels" ]; then # bits of the host
	try 0 "$build/tests/cuda/kernels"
	try 0 "$build/tests/cuda/dev_kernels"
else
	echo "bits: skipped, as there is no C++ compiler"
fi

built() { # name, how many kernels, KiB at most for each kind of device
	local name=$1 want=$2 ceiling=$3 fatbin=$build/obj/src/$1.fatbin report=$build/obj/src/$1.report sm n most kinds=1 kib
	if [ ! -s "$fatbin" ] || [ ! -s "$report" ]; then
		echo "$name: skipped, as the build has no kernels"
		return
	fi
	for sm in $(grep -o "for 'sm_[0-9a-z]*'" "$report" | sort -u | tr -d "'" | cut -d' ' -f2); do
		n=$(grep -c "entry function 'tt_[a-z0-9_]*' for '$sm'" "$report")
		verdict "$name: $n kernels of $want for $sm" $((n != want))
		kinds=$((kinds + 1)) # and the PTX
	done
	grep -E '[1-9][0-9]* bytes (stack frame|spill)' "$report" > "$out"
	verdict "$name: no spills" $((! $?))
	most=$(grep -oE 'Used [0-9]+ registers' "$report" | grep -oE '[0-9]+' | sort -n | tail -n 1)
	verdict "$name: at most 128 registers, not ${most:-none}" $((${most:-999} > 128))
	kib=$(($(stat -c %s "$fatbin") / 1024 / kinds))
	verdict "$name: $kib KiB for each of $kinds kinds of devices" $((kib > ceiling))
	echo "$name: $((kinds - 1)) kinds of devices and PTX, ${most:-no} registers at most, $kib KiB each"
}
both() { # of $build
	built cuda_kernels 124 500
	built dev_kernels 1 120
}
both
# In the long form also as released: minutes of nvcc.
if [ -n "${TEST_LONG:-}" ] && [ -s "$build/obj/src/cuda_kernels.fatbin" ]; then
	release=$build/release/obj/src
	try 0 nice make -j2 RELEASE=1 B="$build/release" "$release/cuda_kernels.fatbin" "$release/dev_kernels.fatbin"
	kinds=$(grep -o "for 'sm_[0-9a-z]*'" "$release/cuda_kernels.report" | sort -u | wc -l)
	verdict "a release is for six kinds of devices, not $kinds" $((kinds != 6))
	build=$build/release both
fi
sum_up
