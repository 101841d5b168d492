#!/bin/bash
# Sizes and notices: files under 800 lines, functions of at most 60, a licence line in each source,
# lines of at most 120 columns with tabs of 8 (the aim is 100), scripts of tests that can be run (two places hold what others read in).
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
files=$(ls {src,transports,benchmarks,tools,examples,tests/*}/*.[ch] include/*.h 2> /dev/null)
bad=0

for f in $files; do
	lines=$(wc -l < "$f")
	[ "$lines" -lt 800 ] || { echo "$f has $lines lines"; bad=1; }
	case $f in *.c) grep -q 'SPDX-License-Identifier: Apache-2.0' "$f" || {
		echo "$f has no licence line"
		bad=1
	} ;; esac
	grep -nwE 'TO''DO|FIX''ME|XX''X' "$f" | sed "s|^|$f:|" | grep . && bad=1
	expand "$f" | awk -v f="$f" 'length($0) > 120 { print f ":" NR ": " length($0) " columns"; n++ }
		END { exit n > 0 }' || bad=1
	# A function begins with "{" in the first column and ends with "}" there.
	awk -v f="$f" '/^{/ { start = NR } /^}/ && start {
			if (NR - start > 61) { print f ":" start ": function of " NR - start - 1 " lines"; n++ }
			start = 0 }
		END { exit n > 0 }' "$f" || bad=1
done
for f in tests/*/*.sh; do
	[ -x "$f" ] || [[ $f == tests/harness/* || $f == tests/vm/faults.sh ]] || { echo "$f is not executable"; bad=1; }
done
exit $bad
