#!/bin/bash
# Runs test programs and scripts one after the other, each within a limit, and sums their tests.
# A script counts as one test. Output is shown for failures. SPDX-License-Identifier: Apache-2.0
# Environment: BUILD, TEST_TIMEOUT (seconds each), TEST_SANITIZE, TEST_VERBOSE=1 (show all output).
set -u
cd "$(dirname "$0")/../.." || exit 1
limit=${TEST_TIMEOUT:-300}
logs=${BUILD:-build}/logs
passed=0 failed=0 before=
mkdir -p "$logs"

# Sanitizers map fixed addresses; a randomized layout can be in their way.
if [ -n "${TEST_SANITIZE:-}" ]; then
	setarch -R true 2> /dev/null && before="setarch -R"
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:halt_on_error=1:allocator_may_return_null=1
	export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:allocator_may_return_null=1
	export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
fi

# Sets good and bad from the last line of counts of either main.
count() { # log, exit status
	good=$(sed -n 's/.*Synthesis:.*Passing: \([0-9]*\).*/\1/p; s/^\([0-9]*\) passed, .*/\1/p' "$1" | tail -n 1)
	bad=$(sed -n 's/.*Synthesis:.*Failing: \([0-9]*\).*/\1/p; s/^[0-9]* passed, \([0-9]*\) failed.*/\1/p' "$1" | tail -n 1)
	if [ -z "$good" ]; then
		good=$(($2 == 0)) bad=$(($2 != 0))
	elif [ "$2" -ne 0 ] && [ "$bad" -eq 0 ]; then
		bad=1
	fi
}

for program in "$@"; do
	name=${program#"${BUILD:-build}"/}
	name=${name#*tests/}
	log=$logs/$(echo "$name" | tr / _).log
	start=$(date +%s.%N)
	args=
	case $program in
	*.sh) ;;
	*) [ -z "${TEST_SANITIZE:-}" ] && args=-j1 ;;
	esac
	# shellcheck disable=SC2086
	timeout -k 5 "$limit" $before "$program" $args > "$log" 2>&1 < /dev/null
	status=$?
	count "$log" $status
	passed=$((passed + good)) failed=$((failed + bad))
	verdict=ok
	[ "$bad" -ne 0 ] && verdict=FAIL
	[ $status -eq 124 ] && verdict="FAIL (no end after $limit s)"
	printf '%-44s %4d passed %3d failed %6.1f s  %s\n' "$name" "$good" "$bad" \
		"$(echo "$(date +%s.%N) $start" | awk '{ print $1 - $2 }')" "$verdict"
	if [ "$bad" -ne 0 ] || [ -n "${TEST_VERBOSE:-}" ]; then
		tail -n 60 "$log" | sed 's/^/    /'
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
