#!/bin/bash
# tutti-info: what it shows of this machine, explanations and schedules, valid JSON, exit statuses.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
info=${BUILD:-build}/bin/tutti-info
. tests/harness/checks.sh

ask() { # wanted status, arguments of tutti-info
	try "$1" "$info" "${@:2}"
}

hasnt() {
	! grep -Eq -- "$1" "$out"
	verdict "there is '$1'" $?
}

ask 0
has "^host +$(uname -n), boot id $(cat /proc/sys/kernel/random/boot_id)$"
has '^cores +[1-9][0-9]* usable of [0-9]+ online$'
has '^reduction +kernels for (avx512|avx2|sse2|generic)$'
has '^addresses +[0-9a-f.:]+'
has '^transports inproc +on, .*us and .*GB/s'
has '^ +shm +on,'
has '^ +tcp +on, between hosts'
has '^settings +all at their defaults'

TUTTI_TRANSPORTS=tcp TUTTI_ADDRS=127.0.0.1 TUTTI_DEADLINE=60 TUTTI_WINDW=1 ask 0
has 'shm +off: not in TUTTI_TRANSPORTS=tcp'
has '^addresses +127\.0\.0\.1 on '
has 'TUTTI_TRANSPORTS=tcp \(default all\)'
hasnt 'TUTTI_DEADLINE' # set, and equal to its default
has 'did you mean TUTTI_WINDOW'
TUTTI_ADDRS=192.0.2.254 ask 0
has '^addresses +none: .*TUTTI_ADDRS'
TUTTI_JOB=sesame ask 0 --settings
has '^TUTTI_JOB '
hasnt sesame

ask 0 --explain allreduce:64M
has '^AllReduce of 64 MiB, 2 ranks on this host over shm'
has '^  -> [a-z0-9]+ +[0-9.]+ [mu]s +x'
has 'chosen: [a-z0-9]+, the cheapest'
TUTTI_ALGO=ring ask 0 --explain all_reduce:8:4:tcp --explain broadcast:1K
has '-> ring .*, forced$'
has 'chosen: ring, forced by TUTTI_ALGO=ring'
has '^Broadcast of 1 KiB'

ask 0 --print allreduce:ring:4:2
has '^AllReduce ring rank 2 of 4'
has '^ +[0-9]+ lane 0 send +in\[[0-9]\] to 3'
[ "$(grep -c '^AllReduce' "$out")" -eq 1 ]
verdict "one rank's schedule" $?
ask 0 --print barrier:dissemination:5
[ "$(grep -c '^Barrier' "$out")" -eq 5 ]
verdict "the schedules of 5 ranks" $?

TUTTI_ALGO='a"b\c' TUTTI_JOB=sesame ask 0 --json --explain allreduce:1M:3 --explain reduce:4 --print reduce:knomial:3
hasnt sesame
json 'd["cores"]["usable"] >= 1 and d["addresses"]["used"]'
json '[t["name"] for t in d["transports"]] == ["inproc", "shm", "verbs", "tcp"] and all(t["on"] for t in d["transports"] if t["name"] != "verbs")'
json '{"name": "TUTTI_ALGO", "value": "a\"b\\c", "default": ""} in d["settings"]'
json 'len(d["explain"]) == 2 and d["explain"][0]["ranks"] == 3 and d["explain"][0]["bytes"] == 1 << 20'
json 'all(e["chosen"] in [c["algorithm"] for c in e["candidates"]] for e in d["explain"])'
json '[s["rank"] for s in d["schedules"]] == [0, 1, 2]'
ask 0 --json
json 'd["explain"] == [] and d["schedules"] == [] and d["settings"] == []'

# RDMA: this machine has none, or lists what it has and says whether all is well.
if [ -z "$(ls /sys/class/infiniband 2> /dev/null)" ]; then
	ask 0 --check-rdma
	has '^no RDMA device$'
	[ "$(wc -l < "$out")" -eq 1 ]
	verdict "one line" $?
	TUTTI_TRANSPORTS=verbs ask 1 --check-rdma
	has '^wrong +no RDMA device, though TUTTI_TRANSPORTS=verbs asks for one'
	TUTTI_IB_HCA=mlx5_0 ask 1 --check-rdma --json
	json 'd["rdma"]["devices"] == [] and "TUTTI_IB_HCA=mlx5_0" in d["rdma"]["problems"][0]'
else
	"$info" --check-rdma --json > "$out"
	json 'd["rdma"]["devices"] or d["rdma"]["problems"]'
	json 'all(p["usable"] or p["why"] for v in d["rdma"]["devices"] for p in v["ports"])'
	TUTTI_IB_HCA=nothing ask 1 --check-rdma
	has '^wrong +TUTTI_IB_HCA=nothing admits none'
fi
# A file that is no library stands for a missing one.
broken=$work/broken
mkdir "$broken"
: > "$broken/libibverbs.so.1"
LD_LIBRARY_PATH=$broken "$info" --check-rdma --json > "$out"
json 'not d["rdma"]["verbs"]'
if [ -n "$(find /usr/include -path '*infiniband/verbs.h' 2> /dev/null)" ]; then
	json '"libibverbs.so.1" in d["rdma"]["why"] and "Debian package libibverbs1" in d["rdma"]["why"]'
fi

ask 0 --settings-markdown
has '^\| .TUTTI_WINDOW. \| size \|'
ask 0 --help
has '--explain'
for bad in --nonsense word "--explain allreduce" "--explain nothing:8" "--explain allreduce:x" \
	"--explain allreduce:8:0" "--explain allreduce:8:2:pigeon" "--explain allreduce:8:2:shm:1" \
	"--explain allreduce:99999999999999999999" "--print allreduce:chain:2" "--print allreduce:ring" \
	"--print allreduce:ring:4:4" "--json --print allreduce:ring:0"; do
	# shellcheck disable=SC2086
	ask 2 $bad
	hasnt '^\{'
done
"$info" > /dev/full 2> "$out"
[ $? -eq 1 ]
verdict "a full disk is an error" $?

sum_up
