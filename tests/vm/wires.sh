#!/bin/bash
# Two devices on a wire in one machine, and two machines on one or two wires, with soft-RoCE and soft-iWARP.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0
for transport in rxe siw; do
	for place in '--devices 2' '--hosts 2' '--hosts 2 --devices 2'; do
		# shellcheck disable=SC2086
		if out=$(tests/vm/rdma-vm --timeout 120 --transport $transport $place -- tests/vm/talk 2>&1); then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			echo "FAIL $transport $place: $out"
		fi
	done
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
