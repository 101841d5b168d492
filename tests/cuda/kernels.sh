#!/bin/bash
# The CUDA kernels: the same bits as the host's reductions (compiled for the host), and what ptxas said of them when
# they were built: all there for each kind of device, none with registers in memory. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
good=0 bad=0

check() { # words, whether
	if [ "$2" -eq 0 ]; then
		good=$((good + 1))
	else
		bad=$((bad + 1))
		echo "FAIL $1"
	fi
}

if [ -x "$build/tests/cuda/kernels" ]; then
	"$build/tests/cuda/kernels"
	check "bits of the host" $?
	"$build/tests/cuda/dev_kernels"
	check "bits of the host, by blocks" $?
else
	echo "bits: skipped, as there is no C++ compiler"
fi

built() { # name, how many kernels
	local name=$1 want=$2 report=$build/obj/src/$1.report sm n most
	if [ ! -s "$build/obj/src/$name.fatbin" ] || [ ! -s "$report" ]; then
		echo "$name: skipped, as the build has no kernels"
		return
	fi
	for sm in $(grep -o "for 'sm_[0-9a-z]*'" "$report" | sort -u | tr -d "'" | cut -d' ' -f2); do
		n=$(grep -c "entry function 'tt_[a-z0-9_]*' for '$sm'" "$report")
		check "$name: $n kernels of $want for $sm" $((n != want))
	done
	grep -E '[1-9][0-9]* bytes (stack frame|spill)' "$report"
	check "$name: no spills" $((! $?))
	most=$(grep -oE 'Used [0-9]+ registers' "$report" | grep -oE '[0-9]+' | sort -n | tail -n 1)
	check "$name: at most 128 registers, not ${most:-none}" $((${most:-999} > 128))
}
built cuda_kernels 124
built dev_kernels 1
echo "$good passed, $bad failed"
[ $bad -eq 0 ]
