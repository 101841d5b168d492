#!/bin/bash
# A document that says src/x.c `f` is right: the file is there and has such a word. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=0
# shellcheck disable=SC2016
names='[a-z]+(/[a-z_0-9]+)+\.[ch] (`[a-z_0-9]+`(, | and )?)+'

while IFS=: read -r doc line words; do
	file=${words%% *}
	for name in $(tr -dc 'a-z_0-9 ' <<< "${words#* }"); do
		grep -qw -- "$name" "$file" 2> /dev/null || { echo "$doc:$line: $file has no $name"; bad=1; }
	done
done < <(grep -noE "$names" docs/*.md docs/decisions/*.md | sed 's/ and / /g')
exit $bad
