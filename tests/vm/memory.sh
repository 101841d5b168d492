#!/bin/bash
# Registered memory on soft-RoCE: its conformance; and a workload that maps, unmaps and uses addresses again, which
# must be right while registrations stay few, and leave none behind. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build} TEST_TIMEOUT_SCALE=5 TEST_TRANSPORT=verbs TEST_CASES=60 TUTTI_LOG=info
passed=0 failed=0

within() { # what, least and most registrations seen, the command
	local out
	if out=$(tests/vm/rdma-vm --timeout 150 -- bash -c '
		regions() { rdma resource show | sed "s/.* mr \([0-9]*\).*/\1/"; }
		most=0
		"${@:3}" & pid=$!
		while kill -0 $pid 2> /dev/null; do
			now=$(regions) && [ "$now" -le "$most" ] || most=$now
			sleep 0.1
		done
		wait $pid || exit
		echo "at most $most registrations, $(regions) left"
		[ "$most" -ge "$1" ] && [ "$most" -le "$2" ] && [ "$(regions)" -eq 0 ]' inside "${@:2}" 2>&1); then
		passed=$((passed + 1))
		echo "$1: $(tail -n 1 <<< "$out")"
	else
		failed=$((failed + 1))
		echo "FAIL $1: $out"
	fi
}

# Of 3 processes each: 2 of staging, 4 of conns, 10 ranges, temporaries; the conformance has 3 endpoints in one.
within "memory comes and goes" 12 80 "$BUILD/tests/collective/memory" -j1
within "the same with room for 3 MiB" 12 60 env TUTTI_IB_REGISTERED=3M "$BUILD/tests/collective/memory" -j1
within "conformance of registered memory" 0 60 "$BUILD/tests/conformance/registered" -j1
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
