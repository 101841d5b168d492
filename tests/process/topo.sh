#!/bin/bash
# tutti-info --topo: fixtures and this machine with parts of it hidden, what is written is read again; each file of
# ../shared/topologies (or TEST_TOPOLOGIES) against its expected answer, skipped with a word where the folder is not.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
info=$(realpath "${BUILD:-build}/bin/tutti-info")
# shellcheck source=tests/harness/checks.sh
. tests/harness/checks.sh

# ---- this machine
try 0 "$info" --topo
has '^topology +this machine, by '
has '^digest +[0-9a-f]{16}$'
try 0 "$info" --topo --json
json 'd["numa"] and d["cores"] and all(n["bus_id"] and n["ports"] for n in d["nics"])'
json 'len(d["gpu_nic"]) == len(d["gpus"]) and d["source"].startswith("this machine")'

# Libraries that are no libraries stand for missing ones.
mkdir "$work/broken"
: > "$work/broken/libhwloc.so.15"
: > "$work/broken/libexpat.so.1"
try 0 env LD_LIBRARY_PATH="$work/broken" "$info" --topo
has '^topology +this machine, by /sys \((no hwloc: .*libhwloc.so.15.*libhwloc15|built without).*\)$'
try 1 env LD_LIBRARY_PATH="$work/broken" "$info" --topo tests/fixtures/topo/xgmi.xml
has 'XML cannot be read: .*libexpat.so.1.*Debian package libexpat1'
try 0 env LD_LIBRARY_PATH="$work/broken" "$info" --topo tests/fixtures/topo/two-sockets.topo

# A driver of five GPUs: two linked to each other, to a switch, and into the dark of a VM; one whose link leads to a
# GPU that is not there; one without links.
mkdir "$work/nvml"
try 0 "${CC:-cc}" -shared -fPIC -o "$work/nvml/libnvidia-ml.so.1" tests/fixtures/nvml.c
try 0 env LD_LIBRARY_PATH="$work/nvml" "$info" --topo --json
json '[g["bus_id"] for g in d["gpus"]] == [f"4{i}ff:00:00.0" for i in range(5)] and d["gpus"][0]["name"] == "GPU 0"'
json '{(l["from"], l["to"], l["count"], l["mbytes"]) for l in d["links"] if l["kind"] == "nvlink"} == {("40ff:00:00.0", "41ff:00:00.0", 2, 41200), ("41ff:00:00.0", "40ff:00:00.0", 2, 41200), ("40ff:00:00.0", "nvswitch", 1, 20600), ("nvswitch", "40ff:00:00.0", 1, 20600), ("41ff:00:00.0", "nvswitch", 3, 61800), ("nvswitch", "41ff:00:00.0", 3, 61800), ("42ff:00:00.0", "nvswitch", 1, 20600), ("nvswitch", "42ff:00:00.0", 1, 20600)}'
json '{(l["from"], l["to"], l["count"], l["mbytes"]) for l in d["links"] if l["kind"] == "c2c"} == ({("44ff:00:00.0", "numa0", 2, 89424), ("numa0", "44ff:00:00.0", 2, 89424)} if len(d["numa"]) == 1 else set())'
json 'len(d["numa"]) == 1 or any("44ff:00:00.0: its C2C links lead to a CPU that is not known" in a for a in d["assumed"])'
json 'any("42ff:00:00.0: its driver does not say" in a for a in d["assumed"])'
json 'any("43ff:00:00.0: a link to 4fff:00:00.0, which is not listed" in a for a in d["assumed"])'
json 'any("44ff:00:00.0: a GPU that only its driver lists" in a for a in d["assumed"])'

# What containers hide: mounted over, in a namespace of its own. Each works, and its first line says by what.
hidden() { # the line, then mounts as a script; $0 is tutti-info, $1 an empty folder
	local line=$1 empty
	empty=$(mktemp -d -p "$work")
	try 0 unshare -rm sh -c "{ $2; } && exec \"\$0\" --topo" "$info" "$empty"
	has "^topology +this machine, by $line\$"
	[ "$(grep -c '^topology' "$out")" -eq 1 ]
	verdict "one line" $?
}

if unshare -rm true 2> /dev/null; then
	best='(hwloc [0-9.]+ and /sys|/sys \(built without.*\))'
	hidden '/proc \(no CPUs in /sys\)' 'mount -t tmpfs none /sys'
	has 'PCI devices are not listed'
	has '[1-9][0-9]* cores'
	# shellcheck disable=SC2016
	hidden "$best" 'mount --bind /sys/devices/system "$1" && mount -t tmpfs none /sys &&
		mkdir -p /sys/devices/system && mount --bind "$1" /sys/devices/system'
	has 'PCI devices are not listed'
	has '[1-9][0-9]* cores'
	hidden "$best" 'mount -t tmpfs none /sys/bus && mount -t tmpfs none /sys/class'
	has 'PCI devices are not listed'
	hidden "$best" 'mount -t tmpfs none /sys/firmware && mount -t tmpfs none /sys/devices/virtual'
	hidden '/sys \((no hwloc|built without).*\)' 'mount -t tmpfs none /sys/devices/system/node'
	has 'no NUMA node is listed: taken as one'
	has '[1-9][0-9]* cores'
	hidden '/sys \((no hwloc|built without).*\)' \
		"export LD_LIBRARY_PATH=$work/broken && mount -t tmpfs none /sys/devices/system/cpu/cpu0"
	hidden '/proc \(no CPUs in /sys\)' 'mount -t tmpfs none /sys && mount --bind /dev/null /proc/cpuinfo'
	has 'no CPU is listed'
	# Ranks that are bound look at the machine too.
	# shellcheck disable=SC2016
	try 0 unshare -rm sh -c 'mount -t tmpfs none /sys && cd "$1" &&
		exec taskset -c 0 ./tutti-run -n 2 ./all_reduce_perf -b 1K -e 1K -n 2 -c 1' - "$(dirname "$info")"
else
	echo "what containers hide: skipped, as this user may make no namespace"
fi

# Ranks on cores in another order than their own: what they compose from that is proved before it runs.
if taskset -c 0 true 2> /dev/null && taskset -c 1 true 2> /dev/null; then
	# shellcheck disable=SC2016
	try 0 env TUTTI_LOG=plan:info "$(dirname "$info")/tutti-run" -n 2 bash -c \
		'exec taskset -c $((1 - TUTTI_RANK)) "$0" -b 1K -e 1K -n 2 -c 1' "$(dirname "$info")/all_reduce_perf"
	has 'plan: [1-9][0-9]* schedules proved for the shape of these 2 ranks, with 2 of them'
else
	echo "ranks on cores: skipped, as CPUs 0 and 1 are not here"
fi

# ---- files
fixture=tests/fixtures/topo
try 0 "$info" --topo $fixture/traps.xml
has '^topology +tests/fixtures/topo/traps.xml \(NCCL'
has 'links +0000:21:00.0 to 0000:84:00.0: 4 nvlink, 80 GB/s'
has '0000:84:00.0 0000:85:00.0 PIX'
has 'taken as a thousandth'
try 0 "$info" --topo=$fixture/two-sockets.topo --json
json '{(p["gpu"], p["nic"], p["distance"]) for p in d["gpu_nic"]} >= {("0000:14:00.0", "0000:12:00.0", "PXB"), ("0000:1c:00.0", "0000:12:00.0", "NODE")}'
json 'd["assumed"] == [] and d["nics"][1]["bus_id"] == "virt:eth0"'
try 0 "$info" --topo $fixture/xgmi.xml --json
json 'd["rings"]["count"] == 2 and d["rings"]["fractional"] == 2 and d["bound"] == 3 and d["links_used"] == 8'
json 'all(len(set(o)) == 4 for o in d["rings"]["orders"])'
try 0 "$info" --topo $fixture/nvswitch.xml --json
json 'd["rings"]["count"] == 0 and d["bound"] == 0' # the one of POWER has no way to the others
try 0 env TUTTI_TOPO_FILE=$fixture/xgmi.xml TUTTI_TOPO_DUMP_FILE="$work/dump.xml" "$info" --topo --json
json 'len(d["gpus"]) == 4 and d["cores"] and "from this machine" in d["source"]'
try 0 "$info" --topo "$work/dump.xml" --json
json 'len(d["gpus"]) == 4 and len(d["links"]) == 8'
# Two hosts in one file: all, or the one that is asked for.
try 0 "$info" --topo $fixture/hosts.xml
has '^topology +.*hosts.xml \(NCCL.*, host 1 of 2\)$'
has '^topology +.*hosts.xml#2 \(NCCL.*, host 2 of 2\)$'
try 0 "$info" --topo $fixture/hosts.xml --json --explain allreduce:1M
json 'len(d["gpus"]) == 2 and [len(o["gpus"]) for o in d["others"]] == [3] and d["digest"] != d["others"][0]["digest"]'
json 'd["predicted"] and d["others"][0]["predicted"] != d["predicted"]'
try 0 "$info" --topo "$fixture/hosts.xml#2" --json
json 'len(d["gpus"]) == 3 and "others" not in d and len(d["links"]) == 2'
try 0 env TUTTI_TOPO_FILE="$fixture/hosts.xml#2" "$info" --topo
has 'hosts.xml#2 \(NCCL.*, host 2 of 2, what it leaves open from this machine\)'
try 0 "$info" --topo $fixture/hosts.xml --hosts 4 --explain allreduce:1M
has '^.*, host 2 of 2\)$'
[ "$(grep -c '^AllReduce of 1 MiB' "$out")" -eq 2 ]
verdict "both hosts are predicted" $?
try 1 "$info" --topo "$fixture/hosts.xml#3"
has 'no host 3 is in it, but 2 of them'
try 1 "$info" --topo "$fixture/two-sockets.topo#2"
has 'only NCCL.s XML has several hosts'
for bad in "--topo README.md" "--topo src" "--topo /nowhere" "--topo synthetic:x" "--topo $fixture/hwloc3.xml"; do
	# shellcheck disable=SC2086
	try 1 "$info" $bad
	has 'error'
done
for bad in "--as text" "--topo --as poem" "--topo a b"; do
	# shellcheck disable=SC2086
	try 2 "$info" $bad
done

digest() {
	"$info" --topo "$1" 2> "$out" | sed -n 's/^digest *//p' | head -n 1
}

# Devices, links and rings, which NCCL's form has a place for.
cat > "$work/devices.py" << 'END'
import json, subprocess, sys
def devices(file):
    d = json.loads(subprocess.run([sys.argv[1], "--topo", file, "--json"], capture_output=True).stdout)
    # Names of GPUs and of interfaces have no place; speeds of links come from the GPU's generation.
    def speed(x): # a generation and lanes, to the MB/s
        return x["mbytes"] and x["mbytes"] // 2
    return ([(g["bus_id"], g["numa"], speed(g)) for g in d["gpus"]] +
            [(n["bus_id"], speed(n), [(p["id"], p["mbytes"]) for p in n["ports"]]) for n in d["nics"]] +
            [{k: l[k] for k in l if k != "mbytes"} for l in d["links"]] + [d["rings"], d["bound"], d["trees"]])
a, b = devices(sys.argv[2]), devices(sys.argv[3])
for x, y in zip(a, b):
    if x != y:
        print(x, y)
sys.exit(a != b)
END

# As text the same machine; as XML too, where NCCL's form can say all of it; else the same devices, and the same XML
# when it is read and written again.
again() { # file
	local was
	was=$(digest "$1")
	"$info" --topo "$1" --as text > "$work/again" 2>> "$out" && [ -n "$was" ] && [ "$(digest "$work/again")" = "$was" ]
	verdict "$1: another machine as text" $?
	"$info" --topo "$1" --as nccl > "$work/again.xml" 2>> "$out" &&
		"$info" --topo "$work/again.xml" --as nccl 2>> "$out" | cmp - "$work/again.xml" >> "$out"
	verdict "$1: another XML when written again" $?
	[ "$1" = $fixture/short-machine.topo ] && return # with a GPU that is slower than any lane
	if [ -f "$1" ] && grep -q '<system' "$1"; then
		[ "$(digest "$work/again.xml")" = "$was" ]
		verdict "$1: another machine as XML" $?
	else
		python3 "$work/devices.py" "$info" "$1" "$work/again.xml" >> "$out" 2>&1
		verdict "$1: other devices as XML" $?
	fi
}

for f in "$fixture"/*; do
	[ "$f" = "$fixture/hwloc3.xml" ] || again "$f"
done

# ---- machines that others recorded
shared=${TEST_TOPOLOGIES:-../shared/topologies}
if [ ! -r "$shared/expected.json" ]; then
	echo "recorded machines: skipped, as there is no $shared/expected.json (TEST_TOPOLOGIES)"
else
	python3 tests/process/topo_expected.py "$info" "$shared" > "$out" 2>&1
	verdict "expected answers of $shared" $?
	sed -n 's/^recorded/recorded/p' "$out"
	for f in "$shared"/nccl/*topo*.xml "$shared"/rccl/*.xml "$shared"/hwloc/*.v2.xml; do
		again "$f"
	done
	for f in "$shared"/hwloc/sysfs/*.tar.bz2; do
		tree=$work/$(basename "$f" .tar.bz2)
		mkdir "$tree" && tar -C "$tree" -xjf "$f" && again "$(echo "$tree"/*)"
	done
	try 0 "$info" --topo "$(echo "$work"/nvidiagpunumanodes/*)" --json
	json 'len(d["gpus"]) == 6 and {g["numa"] for g in d["gpus"]} == {"numa0", "numa8"}'
	json 'len(d["numa"]) == 2 and any("numa255 has no CPUs" in a for a in d["assumed"])'
	try 0 "$info" --topo "$shared/hwloc/nvidiaDGX2.v2.xml" --json
	json 'len(d["gpus"]) == 16 and len(d["links"]) == 32 and all(l["count"] == 6 for l in d["links"])'
fi

sum_up
