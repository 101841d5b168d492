#!/bin/sh
# Runs each fuzzer for FUZZ_SECONDS from tests/fuzz/corpus/<name>, where there is one.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
seconds=${FUZZ_SECONDS:-10}
passed=0 failed=0
for fuzzer in "$@"; do
	name=$(basename "$fuzzer")
	work=$fuzzer.work
	mkdir -p "$work/corpus"
	seeds=tests/fuzz/corpus/$name
	[ -d "$seeds" ] || seeds=
	# shellcheck disable=SC2086
	if timeout -k 5 $((seconds + 60)) "$fuzzer" -max_total_time="$seconds" -timeout=30 \
		-rss_limit_mb=2048 -artifact_prefix="$work/" "$work/corpus" $seeds > "$work/log" 2>&1; then
		passed=$((passed + 1))
		echo "fuzz/$name $(sed -n 's/^Done //p' "$work/log")"
	else
		failed=$((failed + 1))
		echo "fuzz/$name FAIL; the input is in $work"
		tail -n 40 "$work/log" | sed 's/^/    /'
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
