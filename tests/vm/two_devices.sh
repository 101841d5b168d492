#!/bin/bash
# Two devices: both carry, each what its link can; one beside two; one dies and the other goes on. In one machine and in two
# with two wires, over soft-RoCE and soft-iWARP. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build}
passed=0 failed=0
within() { # arguments of rdma-vm; counts what it tried
	local out status
	echo "== $*"
	out=$(tests/vm/rdma-vm --timeout 400 "$@" -- tests/vm/two_devices 2>&1)
	status=$?
	echo "$out"
	passed=$((passed + $(grep -cE '^(\[[01]\] )?ok ' <<< "$out")))
	failed=$((failed + $(grep -cE '^(\[[01]\] )?FAIL ' <<< "$out")))
	[ $status -eq 0 ] || [ $failed -gt 0 ] || { failed=1; echo "FAIL status $status"; }
}

within --devices 2
within --hosts 2 --devices 2
within --hosts 2 --devices 2 --transport siw
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
