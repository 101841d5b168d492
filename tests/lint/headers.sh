#!/bin/bash
# Each header compiles alone; tutti.h also as C99 and C++. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
cc=${CC:-gcc}
bad=0

compile() {
	"$@" -fsyntax-only -Wall -Wextra -Werror -Iinclude || { echo "failed: $*"; bad=1; }
}

for h in src/*.h transports/*.h tests/harness/*.h benchmarks/*.h; do
	[ -e "$h" ] || continue
	# Through a file that includes it: a header compiled as the main file has warnings of its own.
	compile "$cc" -std=c17 -D_GNU_SOURCE -iquote src -iquote transports -iquote tests/harness \
		-iquote benchmarks -Wno-unused-function -Wno-unused-parameter -include "$h" -x c /dev/null
done
compile "$cc" -std=c99 -pedantic -Wstrict-prototypes -include include/tutti.h -x c /dev/null
cxx=$(command -v g++ || command -v clang++) &&
	compile "$cxx" -std=c++11 -pedantic -include include/tutti.h -x c++ /dev/null
exit $bad
