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


expected = json.load(open(os.path.join(shared, "expected.json")))
for name in expected:
    check(name, expected[name])
print(f"recorded machines: {len(expected)} files, {bad} wrong")
sys.exit(bad > 0)
