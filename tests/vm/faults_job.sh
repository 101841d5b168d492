#!/bin/bash
# Jobs over RDMA that meet faults, over soft-RoCE and soft-iWARP: the error's text and time, right results else, and
# what works afterwards. DRIVERS and PARTS name some of it. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0
within() { # arguments of rdma-vm; counts what it tried
	local out status bad
	echo "== $*"
	out=$(tests/vm/rdma-vm --timeout 400 "$@" 2>&1)
	status=$?
	echo "$out"
	bad=$(grep -cE '^(\[[01]\] )?FAIL ' <<< "$out")
	[ $status -eq 0 ] || [ "$bad" -gt 0 ] || { bad=1; echo "FAIL status $status"; }
	passed=$((passed + $(grep -cE '^(\[[01]\] )?ok ' <<< "$out")))
	failed=$((failed + bad))
}
for driver in ${DRIVERS:-rxe siw}; do
	for part in ${PARTS:-start wire hosts}; do
		[ "$part" = hosts ] && place='--hosts 2 --devices 2' || place='--devices 2'
		# shellcheck disable=SC2086
		within --transport "$driver" $place -- "tests/vm/job_$part"
	done
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
