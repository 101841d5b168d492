#!/bin/bash
# The machine of rdma-vm comes up with soft-RoCE and soft-iWARP devices, two processes talk by them, and the verbs
# transport is conformant over soft-RoCE and sums right over both, memory of a device too.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0
within() { # what, arguments of rdma-vm
	local out
	if out=$(tests/vm/rdma-vm --timeout 120 "${@:2}" 2>&1); then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL $1: $out"
	fi
}

export TEST_QUICK=1 BUILD=${BUILD:-build}
within "soft-iWARP" --transport siw -- bash -c 'tests/vm/talk && tests/vm/suite pair'
within "soft-RoCE" --transport rxe -- bash -c 'tests/vm/talk && tests/vm/suite conformance pair device_pair'
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
