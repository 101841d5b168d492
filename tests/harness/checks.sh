# shellcheck shell=bash
# What scripts that look at the output of programs share: each try runs one, has and json look at what it said; gives does
# both. `limit` is in seconds.
# SPDX-License-Identifier: Apache-2.0
work=$(mktemp -d)
out=$work/out
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 limit=30
for v in $(compgen -e TUTTI_) NCCL_TOPO_FILE; do unset "$v"; done

verdict() { # name, 0 if good
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL $1"
		tail -n 40 "$out" | sed 's/^/    /'
	fi
}

try() { # wanted status, settings, command...
	local wanted=$1 status
	shift
	timeout -k 5 "$limit" env "$@" > "$out" 2>&1
	status=$?
	[ $status -eq "$wanted" ]
	verdict "$*: status $status, wanted $wanted" $?
}

has() {
	grep -Eq -- "$1" "$out"
	verdict "no '$1'" $?
}

gives() { # wanted status, a pattern, settings, command...
	try "$1" "${@:3}"
	has "$2"
}

json() { # a condition on the object d
	python3 -c "import json, sys; d = json.load(open(sys.argv[1])); sys.exit(not ($1))" "$out"
	verdict "JSON: $1" $?
}

sum_up() {
	echo "$passed passed, $failed failed"
	[ $failed -eq 0 ]
}
