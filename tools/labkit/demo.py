"""What tools/demo shows: a cluster of three hosts, a Linux guest that moves while it works, a host that dies."""

import argparse
import json
import subprocess
import sys
import time

from . import Lab
from .cluster import POOL, Cluster, wait_until
from .layout import LabError, TREE

GUEST = "web1"


class Show:
    """Prints a timeline: seconds since the start, what happens."""

    def __init__(self):
        self.start = time.monotonic()

    def __call__(self, text):
        print(f"{time.monotonic() - self.start:7.1f} s  {text}", flush=True)


def migrate(cluster, say, result):
    lab, address = cluster.lab, cluster.guests[GUEST]
    say(f"clusterctl migrate {GUEST} hostC      (the guest goes on working)")
    began = time.monotonic()
    process = cluster.start_ctl("migrate", GUEST, "hostC")
    out, err = process.communicate(timeout=180)
    total = time.monotonic() - began
    for line in err.strip().splitlines()[-4:]:
        say("    " + line)
    if process.returncode:
        raise LabError(f"migrate failed ({process.returncode}): {err.strip()}")
    time.sleep(2)
    gap = lab.observer.gaps(since=began, guest=address)[0]
    ok = gap.same_boot and not lab.observer.faults(address, since=began)
    verify = cluster.console(GUEST, "verify", "VERIFY")
    say(f"moved in {total:.1f} s; longest silence seen from outside: {gap.seconds * 1000:.0f} ms; memory: {verify}")
    job = [job for job in cluster.json("task", "list") if job["kind"] == "migrate"][-1]
    result["migrate"] = {"ok": bool(ok and "VERIFY ok" in verify), "downtime_ms": round(gap.seconds * 1000, 1),
                         "total_ms": round(total * 1000), "rounds": int(job.get("figures", {}).get("rounds", 0))}


def failover(cluster, say, result):
    lab, address = cluster.lab, cluster.guests[GUEST]
    say("power loss of hostC             (SIGKILL to everything that it is)")
    killed_ms, killed = time.time() * 1000, time.monotonic()
    lab.kill("hostC")
    domain = wait_until(f"{GUEST} runs elsewhere",
                        lambda: (lambda d: d if d and d["state"] == "running" and d["host"] != "hostC" else None)(
                            cluster.domain(GUEST)), 120)
    tick = lab.observer.wait_tick(address, since=killed + 0.5, timeout=60)
    if not tick:
        raise LabError(f"{GUEST} is said to run on {domain['host']} but is silent")
    at = {kind: [int(event["time_ms"]) for event in cluster.events(kind, killed_ms)]
          for kind in ("host-lost", "host-dead", "domain-placed", "domain-started")}
    lost, dead = at["host-lost"][0], at["host-dead"][0]
    placed = max(t for t in at["domain-placed"] if t >= dead)
    running = min(t for t in at["domain-started"] if t >= placed)
    parts = {"detect_s": (lost - killed_ms) / 1000, "fence_s": (dead - lost) / 1000,
             "decide_s": (placed - dead) / 1000, "start_s": (running - placed) / 1000}
    result["failover"] = {"ok": True, "total_s": round((running - killed_ms) / 1000, 2),
                          **{name: round(value, 2) for name, value in parts.items()}}
    say(f"{GUEST} runs on {domain['host']} again after {result['failover']['total_s']} s: detection {parts['detect_s']:.2f}, "
        f"fencing {parts['fence_s']:.2f}, decision {parts['decide_s']:.2f}, start {parts['start_s']:.2f} s; "
        f"its first sign from outside came after {tick.time - killed:.1f} s (it boots)")


def check_disk(cluster, say, result):
    line = cluster.console(GUEST, "status", "STATUS", timeout=60)
    time.sleep(1)
    check = subprocess.run([TREE / "tests/lab/guest/disklog", "--json", cluster.lab.store_path(f"{GUEST}.raw")],
                           capture_output=True, text=True)
    say(f"guest: {line}")
    say(f"disk of {GUEST}, read from the store: {check.stdout.strip()}")
    report = json.loads(check.stdout)
    result["disk_ok"] = check.returncode == 0 and report.get("boots", 0) >= 2


def run(name, build, json_path):
    result = {"migrate": {"ok": False}, "failover": {"ok": False}, "disk_ok": False}
    say = Show()
    lab = Lab(name, hosts=3, build=build)
    if lab.is_up():
        say(f"a lab named {name} is up from before: taking it down")
        lab.down()
    try:
        say("three hosts, a network, an NFS store, a power controller: tools/lab up")
        lab.up()
        cluster = Cluster(lab, say)
        cluster.create_all()
        say("cluster of hostA, hostB, hostC; fence devices; NFS pool 'vms'")
        say(f"clusterctl vol create {POOL}/{GUEST} 64M; clusterctl create {GUEST}.cfg --host hostB")
        cluster.add_guest(GUEST, host="hostB", memory=256, mb=64, rate=8)
        say(f"{GUEST} (Debian's kernel, a disk on the pool, a NIC) is up and sends a sign of life every 10 ms")
        time.sleep(2)
        migrate(cluster, say, result)
        failover(cluster, say, result)
        check_disk(cluster, say, result)
        say("hostC is switched on again")
        lab.on("hostC")
        cluster.wait_online("hostC", timeout=60)
        print(cluster.ctl("list").stdout, end="")
        print(cluster.ctl("host", "list").stdout, end="")
        print(f"""
The cluster is up. Try, from this folder:
  tools/lab --name {name} exec hostA -- clusterctl list
  tools/lab --name {name} exec hostA -- clusterctl migrate {GUEST} hostC
  tools/lab --name {name} exec hostA -- clusterctl events
and take it down with: tools/demo --down""")
    except (LabError, subprocess.SubprocessError, KeyError, IndexError, ValueError) as error:
        say(f"FAILED: {error!r}")
        output = getattr(error, "stderr", None)
        if output:
            say(output)
        say(f"the lab is left up to look into: tools/lab --name {name} status; logs below {lab.state}")
    if json_path:
        with open(json_path, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
    return 0 if result["migrate"]["ok"] and result["failover"]["ok"] and result["disk_ok"] else 1


def main():
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("--name", default="demo", help="name of the lab (default demo)")
    parser.add_argument("--build", default=str(TREE / "build"), help="build folder")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--down", action="store_true", help="take the demo's cluster down and leave nothing")
    options = parser.parse_args()
    if options.down:
        Lab(options.name).down()
        return 0
    return run(options.name, options.build, options.json)


if __name__ == "__main__":
    sys.exit(main())
