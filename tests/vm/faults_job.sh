#!/bin/bash
# Jobs over RDMA that meet faults: the error's text and time, right results else. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0
within() { # seconds, arguments of rdma-vm
	local out
	if out=$(tests/vm/rdma-vm --timeout "$@" 2>&1); then
		passed=$((passed + 1))
		echo "$out" | grep -E '^(ok|bounce)'
	else
		failed=$((failed + 1))
		echo "FAIL $*: $out"
	fi
}
within 280 --devices 2 -- tests/vm/job_wire
within 150 --hosts 2 -- tests/vm/job_hosts
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
