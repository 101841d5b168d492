#!/bin/bash
# Documents that repeat a table say what it says: settings (src/env.c), results (src/base.h).
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
info=${BUILD:-build}/bin/tutti-info
bad=0
[ -x "$info" ] || { echo "$info is not built"; exit 1; }

if ! "$info" --settings-markdown | diff docs/settings.md -; then
	echo "docs/settings.md is not what src/env.c says: make docs-settings"
	bad=1
fi

results=$(sed -n 's/^.*X(\(tutti[A-Za-z]*\), "\([^"]*\)".*/\1|\2/p' src/base.h)
[ -n "$results" ] || { echo "no results found in src/base.h"; bad=1; }
while IFS='|' read -r code text; do
	value=$(sed -n "s/^[ \t]*$code = \([0-9]*\).*/\1/p" include/tutti.h)
	grep -qF "| $code | $value | $text |" docs/errors.md && continue
	echo "docs/errors.md has no row: | $code | $value | $text |"
	bad=1
done <<< "$results"
exit $bad
