#!/bin/bash
# tutti-info --draw: pictures of three machines and two schedules, as text for Graphviz and, where its program is, as
# SVG and PNG: every node and edge is there, and in the pictures of docs/pictures too. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
info=$(realpath "${BUILD:-build}/bin/tutti-info")
# shellcheck source=tests/harness/checks.sh
. tests/harness/checks.sh

cat > "$work/count.py" << 'END'
# How many nodes and edges of each class a picture has, as in "gpu 8 link 16".
import re, sys
import xml.etree.ElementTree as tree
file, found = sys.argv[1], {}
if file.endswith(".svg"):
    root = tree.parse(file).getroot()
    if root.tag != "{http://www.w3.org/2000/svg}svg" or not root.get("viewBox"):
        sys.exit("no SVG")
    words = [g.get("class", "").split() for g in root.iter("{http://www.w3.org/2000/svg}g")]
    kinds = [w[1] for w in words if w and w[0] in ("node", "edge")]
else:
    kinds = re.findall(r"^\w+(?: -> \w+)? \[class=(\w+)", open(file).read(), re.M)
for kind in kinds:
    found[kind] = found.get(kind, 0) + 1
print(" ".join(f"{k} {found[k]}" for k in sorted(found)))
END

same() { # file, what is in it
	local got
	got=$(python3 "$work/count.py" "$1" 2>&1)
	[ "$got" = "$2" ]
	verdict "$1: $got, wanted $2" $?
}

graphviz=
command -v dot > /dev/null && graphviz=1 || echo "pictures: as text alone, as there is no Graphviz"

# As text; what the pictures of the documents have; where it can be, made anew.
picture() { # name, what is in it, options
	local name=$1 want=$2
	shift 2
	try 0 "$info" "$@" --draw "$work/$name.dot"
	same "$work/$name.dot" "$want"
	same "docs/pictures/$name.svg" "$want"
	[ -n "$graphviz" ] || return
	try 0 "$info" "$@" --draw "$work/$name.svg"
	same "$work/$name.svg" "$want"
}

# Eight GPUs, 16 pairs of them linked, 6 rings of 8 hops; in the circle each GPU is once more.
picture cube-mesh "gpu 16 host 1 link 16 nic 4 numa 2 pci 4 port 4 ring 48 tree 22" --topo tests/fixtures/topo/cube-mesh.topo
picture two-sockets "cache 2 gpu 10 host 1 link 2 nic 2 numa 2 pci 2 port 2 tree 15" --topo tests/fixtures/topo/two-sockets.topo
picture xgmi "gpu 8 host 1 link 4 nic 1 numa 1 pci 2 port 1 ring 8 tree 9" --topo tests/fixtures/topo/xgmi.xml
# p - 1 messages and sums a rank, then p - 1 messages more; two trees of seven links, both ways.
picture ring "line 4 message 24 rank 4 tick 5 work 12" --print allreduce:ring:4
picture dbtree "line 8 message 28 rank 8 tick 5 work $("$info" --print allreduce:dbtree:8 | grep -c ' reduce ')" \
	--print allreduce:dbtree:8 --explain allreduce:64K:8:tcp

# A ring takes 2 (p-1) messages and p-1 sums one after the other: the costs of the plan, to the microsecond.
try 0 "$info" --print allreduce:ring:4 --draw "$work/time.dot"
cp "$work/time.dot" "$out"
has 'ring, 4 ranks, 1 MiB over shm: 168 us by the model'

# A switch is in the middle, what leads to a CPU is not in the circle.
try 0 "$info" --topo tests/fixtures/topo/nvswitch.xml --draw "$work/switch.dot"
same "$work/switch.dot" "gpu 8 host 1 link 5 numa 2 nvswitch 1 tree 6"

if [ -n "$graphviz" ]; then
	try 0 "$info" --print barrier:dissemination:3 --draw "$work/a.png"
	[ "$(head -c 4 "$work/a.png" | tail -c 3)" = PNG ]
	verdict "a PNG" $?
	try 1 "$info" --print barrier:dissemination:3 --draw /nowhere/a.svg
fi
try 1 env PATH=/nowhere "$info" --print barrier:dissemination:3 --draw "$work/b.svg"
has 'Graphviz is not installed \(Debian package graphviz\)'
[ "$(wc -l < "$out")" -eq 1 ]
verdict "one line" $?
try 1 "$info" --print barrier:dissemination:3 --draw /nowhere/a.dot
for bad in "--draw a.svg" "--topo --draw a.jpg" "--print allreduce:ring:4:1 --draw a.svg" \
	"--print allreduce:ring:4 --print allreduce:ring:5 --draw a.svg" "--print allreduce:ring:33 --draw a.svg"; do
	# shellcheck disable=SC2086
	try 2 "$info" $bad
done

sum_up
