#!/bin/bash
# The verbs transport over soft-RoCE and soft-iWARP: one device, two devices on a wire, two machines on a wire.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
export TEST_SEED=${TEST_SEED:-$((RANDOM + 1))} BUILD=${BUILD:-build}
passed=0 failed=0
within() { # arguments of rdma-vm; counts what it tried
	local out status
	echo "== $*"
	out=$(tests/vm/rdma-vm --timeout 900 "$@" 2>&1)
	status=$?
	echo "$out"
	passed=$((passed + $(grep -cE '^(\[[01]\] )?ok ' <<< "$out")))
	failed=$((failed + $(grep -cE '^(\[[01]\] )?FAIL ' <<< "$out")))
	[ $status -eq 0 ] || [ $failed -gt 0 ] || { failed=1; echo "FAIL status $status"; }
}

echo "TEST_SEED=$TEST_SEED"
within -- tests/vm/suite settings
for wire in rxe siw; do
	within --transport $wire -- tests/vm/suite conformance collective several requests perf cost device far
	within --transport $wire --devices 2 -- tests/vm/suite conformance collective perf device far
	within --transport $wire --hosts 2 -- tests/vm/suite collective perf device far_pair
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
