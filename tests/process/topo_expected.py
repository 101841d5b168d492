# The answers of tutti-info --topo --json beside those of expected.json, which were found by brute force.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys

info, shared = sys.argv[1:]
bad = 0


def complain(file, text):
    global bad
    bad += 1
    print(f"{file}: {text}")


def ask(file):
    run = subprocess.run([info, "--topo", os.path.join(shared, file), "--json"], capture_output=True, timeout=30)
    return run.returncode, json.loads(run.stdout) if run.returncode == 0 else run.stderr.decode()


def check_pairs(file, got, want):
    pairs = {p["gpu"]: p for p in got["gpu_nic"]}
    users = {}
    for w in want:
        p = pairs.get(w["gpu"])
        if not p:
            complain(file, f"no pair for {w['gpu']}")
            continue
        if p["nic"] not in w["nics"] or p["distance"] != w["path"].rstrip("0123456789"):
            complain(file, f"{w['gpu']}: {p['nic']} {p['distance']}, wanted {w['path']} one of {w['nics']}")
        users.setdefault(p["nic"], []).append(w)
    for nic, list_ in users.items():
        for w in list_:
            for other in w["nics"]:
                if len(users.get(other, [])) < len(list_) - 1:
                    complain(file, f"{nic} has {len(list_)} GPUs while {other} is as near to {w['gpu']}")


def check_links(file, got, want, order):
    count = {}
    for l in got["links"]:
        count[l["from"], l["to"]] = count.get((l["from"], l["to"]), 0) + l["count"]
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            if i != j and count.get((a, b), 0) != want["matrix"][i][j]:
                complain(file, f"{a} to {b}: {count.get((a, b), 0)} links, wanted {want['matrix'][i][j]}")
    switch = sum(n for (a, b), n in count.items() if b == "nvswitch")
    if switch != want["switch_links"]:
        complain(file, f"{switch} links to switches, wanted {want['switch_links']}")


def check_rings(file, got, want):
    rings, n = got["rings"], len(got["gpus"])
    found = {"rings_integer": rings["count"], "rings_fractional": rings["fractional"],
             "bound_ring_equiv": got["bound"]}
    for what, value in found.items():
        if abs(value - want[what]) > 1e-3:
            complain(file, f"{what} {value}, wanted {want[what]}")
    used = {}
    for order in rings["orders"]:
        if sorted(order) != sorted(g["bus_id"] for g in got["gpus"]):
            complain(file, f"no ring: {order}")
        for i in range(n):
            used[order[i - 1], order[i]] = used.get((order[i - 1], order[i]), 0) + 1
    count = {(l["from"], l["to"]): l["count"] for l in got["links"]}
    for hop, k in used.items():
        if k > count.get(hop, 0):
            complain(file, f"{hop} used {k} times of {count.get(hop, 0)}")
    if len(rings["orders"]) != rings["count"] or sum(used.values()) != got["links_used"]:
        complain(file, f"{len(rings['orders'])} rings listed, {sum(used.values())} links")


def check(file, want):
    status, got = ask(file)
    if want["kind"] != "system":
        if status != 1 or "what NCCL found" not in got:
            complain(file, f"a graph was taken: {status}")
        return
    if status:
        complain(file, got)
        return
    found = {"gpus": len(got["gpus"]), "nics": len(got["nics"]), "cpus": len(got["numa"]),
             "nets": sum(len(n["ports"]) for n in got["nics"])}
    for what, n in found.items():
        if n != want[what]:
            complain(file, f"{n} {what}, wanted {want[what]}")
    check_pairs(file, got, want["gpu_nic"])
    if "links" in want:
        check_links(file, got, want["links"], [w["gpu"] for w in want["gpu_nic"]])
        if "rings_integer" in want["links"]:
            check_rings(file, got, want["links"])


expected = json.load(open(os.path.join(shared, "expected.json")))
for name in expected:
    check(name, expected[name])
print(f"recorded machines: {len(expected)} files, {bad} wrong")
sys.exit(bad > 0)
