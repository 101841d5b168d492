# shellcheck shell=bash
# What scripts over the fake driver begin with: all they run finds it; run runs a test program, long only in check-long.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
build=${BUILD:-build}
# shellcheck source=tests/harness/checks.sh
. tests/harness/checks.sh
export TEST_DEVICE=cuda LD_LIBRARY_PATH=$build/tests/cuda TUTTI_PAIR_PROBE=$build/bin/tutti-pair-probe

run() { # words for people, program, settings...
	env "${@:3}" "$build/tests/$2" > "$out" 2>&1
	verdict "$2, $1" $?
}

long() {
	[ -z "${TEST_LONG:-}" ] || run "$@"
}
