#!/bin/bash
# The machine of rdma-vm comes up with soft-RoCE and soft-iWARP devices, two processes talk by them, and our own
# programs run there. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
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

within "soft-iWARP" --transport siw -- tests/vm/talk
export TEST_TIMEOUT_SCALE=5
within "soft-RoCE, and conformance there" --transport rxe -- \
	bash -c "tests/vm/talk && '$build/tests/conformance/conformance' -j1"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
