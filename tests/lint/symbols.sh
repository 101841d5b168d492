#!/bin/bash
# What the shared library shows and needs: tutti* alone, no way to end the process, libc alone.
# SPDX-License-Identifier: Apache-2.0
set -u
so=${BUILD:-build}/lib/libtutti.so
bad=0
[ -e "$so" ] || { echo "$so is not built"; exit 1; }

show() { # a reason, then the offending lines on stdin
	lines=$(cat)
	[ -z "$lines" ] && return
	echo "$1:"
	echo "$lines" | sed 's/^/  /'
	bad=1
}

show "exported beside tutti*" < <(nm -D --defined-only "$so" | awk '{ print $NF }' | grep -v '^tutti')
show "declared in tutti.h, not exported" < <(comm -23 \
	<(grep -oE '\btutti[A-Z][A-Za-z0-9]*\(' "$(dirname "$0")/../../include/tutti.h" |
		tr -d '(' | sort -u) \
	<(nm -D --defined-only "$so" | awk '{ print $NF }' | sort -u))
show "imported, though a library must not end its process or take its signals" < <(
	nm -D --undefined-only "$so" | awk '{ sub(/@.*/, "", $NF); print $NF }' |
	grep -xE 'abort|exit|_exit|_Exit|quick_exit|sigaction|signal|printf|puts|__assert_fail')
show "needed beside libc" < <(ldd "$so" | awk '{ print $1 }' |
	grep -vE '^(linux-vdso|linux-gate|libc\.|libpthread\.|.*/ld-|ld-|statically)')
show "soname" < <(readelf -d "$so" | grep SONAME | grep -v 'libtutti\.so\.[0-9]*\]')
exit $bad
