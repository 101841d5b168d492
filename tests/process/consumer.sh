#!/bin/bash
# What a user has after `make install`: a program of its own, built by pkg-config alone against the installed
# tree, shared and static, runs; the shared library needs libc only. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
cc=${CC:-cc}
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT

die() {
	echo "FAIL $*"
	exit 1
}

command -v pkg-config > /dev/null || die "pkg-config is missing: tools/setup.sh check installs it"

# DESTDIR: nothing may be written outside, and the paths inside the files are those without it.
env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s install B="$build" DESTDIR="$top/stage" PREFIX=/opt/tutti > "$top/log" 2>&1 ||
	{ cat "$top/log"; die "make install with DESTDIR"; }
[ "$(ls "$top/stage")" = opt ] || die "files outside of PREFIX: $(ls "$top/stage")"
grep -q '^prefix=/opt/tutti$' "$top/stage/opt/tutti/lib/pkgconfig/tutti.pc" || die "prefix in tutti.pc"
! grep -rIlF "$top" "$top/stage" || die "the staging directory is named inside"
for f in include/tutti.h lib/libtutti.so lib/libtutti.a bin/tutti-run bin/all_reduce_perf; do
	[ -e "$top/stage/opt/tutti/$f" ] || die "$f is not installed"
done

# PREFIX: used as it lies.
env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s install B="$build" PREFIX="$top/prefix" > "$top/log" 2>&1 ||
	{ cat "$top/log"; die "make install with PREFIX"; }
export PKG_CONFIG_PATH=$top/prefix/lib/pkgconfig
version=$(sed -n 's/^#define TUTTI_\(MAJOR\|MINOR\|PATCH\) //p' include/tutti.h | paste -sd.)
[ "$(pkg-config --modversion tutti)" = "$version" ] || die "pkg-config --modversion"

mkdir "$top/user" && cp examples/01_threads.c examples/02_processes.c "$top/user" && cd "$top/user" || exit 1
read -ra flags <<< "$(pkg-config --cflags --libs tutti)"
"$cc" -std=c17 -Wall -Werror 01_threads.c "${flags[@]}" -pthread -o threads || die "C consumer"
LD_LIBRARY_PATH=$top/prefix/lib timeout 60 ./threads || die "C consumer runs"
"$cc" -std=c17 02_processes.c "${flags[@]}" -o processes || die "C consumer of processes"
LD_LIBRARY_PATH=$top/prefix/lib timeout 60 "$top/prefix/bin/tutti-run" -n 3 ./processes || die "under tutti-run"

read -ra flags <<< "$(pkg-config --static --cflags --libs tutti)"
"$cc" -std=c17 01_threads.c "${flags[0]}" "$top/prefix/lib/libtutti.a" -pthread -lm -o static || die "static"
timeout 60 ./static || die "static consumer runs"

if command -v g++ > /dev/null; then
	echo '#include <tutti.h>
	int main() { int v = 0; return tuttiGetVersion(&v) != tuttiSuccess || v != TUTTI_VERSION_CODE; }' > x.cc
	read -ra flags <<< "$(pkg-config --cflags --libs tutti)"
	g++ -Wall -Wextra -Werror x.cc "${flags[@]}" -o cxx || die "C++ consumer"
	LD_LIBRARY_PATH=$top/prefix/lib timeout 10 ./cxx || die "C++ consumer runs"
fi

# Installed programs find the library by themselves; the library needs nothing but libc (and its parts).
timeout 60 "$top/prefix/bin/all_reduce_perf" -t 2 -b 8 -e 8 -n 1 > /dev/null || die "installed all_reduce_perf"
others=$(ldd "$top/prefix/lib/libtutti.so" |
	 grep -Ev 'linux-vdso|/ld-linux|lib(c|pthread|rt|dl)\.so\.[0-9]|statically' || true)
[ -z "$others" ] || die "libtutti.so needs more than libc: $others"
echo "1 passed, 0 failed"
