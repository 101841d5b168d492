#!/bin/bash
# rdma-vm itself: statuses, output, arguments, its end by time and by signal without anything left; and each fault
# of faults.sh has the effect that its name says. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch # where its runs leave their folders, if they do

check() { # what, command
	if "${@:2}" > "$scratch/out" 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL $1: status $?: $(cat "$scratch/out")"
	fi
}
nothing_left() { # neither folders nor processes that have them among their arguments
	local try
	for try in {1..50}; do
		grep -lsa "${scratch%?}[${scratch: -1}]/rdma-vm" /proc/[0-9]*/cmdline || break
		sleep 0.1
	done
	[ "$try" -lt 50 ] && { [ "${1:-}" = folder ] || ! ls -d "$scratch"/rdma-vm.* 2> /dev/null; }
}

command_and_status() {
	local out
	out=$(odd=$'a\n"b' tests/vm/rdma-vm --transport none -- \
		bash -c 'printf "%s|%s|%s\n" "$1" "$2" "$odd"; seq 20000; exit 7' - 'x  y' "it's")
	[ $? -eq 7 ] && [ "$out" = "x  y|it's|a"$'\n''"b'$'\n'"$(seq 20000)" ]
}

ends_by_time() {
	tests/vm/rdma-vm --transport none --timeout 3 -- sleep 60
	[ $? -eq 124 ] && nothing_left
}

ends_by_signal() { # signal, what may be left
	local pid
	tests/vm/rdma-vm --transport none -- sleep 60 &
	pid=$!
	until grep -lsa "${scratch%?}[${scratch: -1}]/rdma-vm" /proc/[0-9]*/cmdline > /dev/null; do sleep 0.1; done
	sleep 1
	kill -"$1" $pid
	wait $pid
	nothing_left "${2:-}"
}

check "arguments, environment, output, status" command_and_status
check "the time-out" ends_by_time
check "TERM" ends_by_signal TERM
check "KILL" ends_by_signal KILL folder
check "faults of two devices on a wire" tests/vm/rdma-vm --devices 2 -- tests/vm/faults_wire
check "faults of two hosts" tests/vm/rdma-vm --hosts 2 -- tests/vm/faults_hosts
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
