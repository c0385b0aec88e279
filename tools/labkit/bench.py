"""Figures of the main job, each beside a baseline in the same run: medians, with every run kept.

    tools/bench migration [--json FILE] [--runs N]   clusterctl migrate beside raw QEMU over TCP, in turn
    tools/bench failover  [--json FILE] [--runs N]   host killed to domain running, by part, beside QEMU's own start
    tools/bench log       [--json FILE] [--runs N]   commits of the replicated log, beside etcd and cibadmin (bench_log.py)
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from . import Lab
from .bench_log import bench_log
from .cluster import Cluster, wait_until
from .layout import TREE

RAW_PORT = 7001


class Qmp:
    """The few QMP commands of a raw migration."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        self.socket.settimeout(120)
        self.file = self.socket.makefile("r")
        self.file.readline()
        self.run("qmp_capabilities")

    def run(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self.file.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")


class RawPair:
    """Two QEMUs with the same guest, in two hosts of the lab, without anything of ours."""

    def __init__(self, lab, memory, mb):
        self.folder = Path(tempfile.mkdtemp(prefix="gantry-bench-"))
        self.processes = []
        kernel, initrd = lab.guest_files()
        # Not a multiple of 256 KiB: QEMU before 9.0 loses pages under TCG otherwise; ours does the same.
        base = ["qemu-system-x86_64", "-accel", "tcg", "-M", "pc-q35-7.2", "-cpu", "qemu64", "-display", "none", "-nodefaults",
                "-no-user-config", "-m", f"{memory * 1024 - 8}k", "-kernel", str(kernel), "-initrd", str(initrd),
                "-append", f"console=ttyS0 quiet gw.mb={mb} gw.rate=4"]
        started = time.monotonic()
        self.source = self.start(lab, "hostA", "source", base)
        self.start_s = time.monotonic() - started
        wait_until("the raw guest is up", lambda: b"READY" in (self.folder / "source.serial").read_bytes(), 90)
        self.destination = self.start(lab, "hostB", "destination", [*base, "-incoming", "defer"])

    def start(self, lab, host, name, argv):
        qmp = self.folder / f"{name}.qmp"
        self.processes.append(lab.spawn(host, [*argv, "-qmp", f"unix:{qmp},server=on,wait=off", "-serial",
                                               f"file:{self.folder / name}.serial"]))
        return Qmp(qmp)

    def migrate(self):
        self.source.run("migrate-set-parameters", **{"max-bandwidth": 1 << 40, "downtime-limit": 100})
        self.destination.run("migrate-incoming", uri=f"tcp:0.0.0.0:{RAW_PORT}")
        self.source.run("migrate", uri=f"tcp:10.79.0.2:{RAW_PORT}")
        while True:
            info = self.source.run("query-migrate")
            if info.get("status") == "completed":
                return info["total-time"], info["downtime"]
            if info.get("status") == "failed":
                raise RuntimeError("the raw migration failed")
            time.sleep(0.01)

    def close(self):
        for qmp in (self.source, getattr(self, "destination", None)):
            try:
                qmp.run("quit")
            except (OSError, AttributeError, ValueError, RuntimeError):
                pass
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def median(values):
    return round(statistics.median(values), 1) if values else None


def bench_migration(cluster, runs, memory, mb):
    raw_total, raw_down, total, outside, qemu_ms = [], [], [], [], []
    address = cluster.add_guest("bench", host="hostA", memory=memory, mb=mb)
    for run in range(runs):
        pair = RawPair(cluster.lab, memory, mb)
        try:
            ms, down = pair.migrate()
        finally:
            pair.close()
        raw_total.append(ms)
        raw_down.append(down)
        target = "hostB" if cluster.domain("bench")["host"] == "hostA" else "hostA"
        began = time.monotonic()
        cluster.ctl("migrate", "bench", target)
        total.append((time.monotonic() - began) * 1000)
        job = [job for job in cluster.json("task", "list") if job["kind"] == "migrate"][-1]
        qemu_ms.append(int(job["figures"]["total_ms"]))
        time.sleep(1)
        outside.append(cluster.lab.observer.gaps(since=began, guest=address)[0].seconds * 1000)
        print(f"run {run + 1}: raw {ms} ms (downtime {down}), gantry {total[-1]:.0f} ms command to prompt, "
              f"{qemu_ms[-1]} ms by its own figures, {outside[-1]:.0f} ms silence outside", flush=True)
    return {"memory_mib": memory, "raw": {"total_ms": median(raw_total), "downtime_ms": median(raw_down), "runs": raw_total},
            "secure": {"command_ms": median(total), "total_ms": median(qemu_ms),
                       "downtime_ms": {"median": median(outside), "max": round(max(outside), 1)},
                       "runs": [round(value) for value in total]},
            "ratio_to_raw": round(statistics.median(a / b for a, b in zip(qemu_ms, raw_total)), 2)}


def bench_failover(cluster, runs, memory, mb):
    parts = {"total_s": [], "detect_s": [], "fence_s": [], "own_s": [], "raw_start_s": []}
    cluster.add_guest("bench", host="hostB", memory=memory, mb=mb)
    for run in range(runs):
        pair_start = raw_start(cluster.lab, memory, mb)
        home = cluster.domain("bench")["host"]
        killed_ms = time.time() * 1000
        cluster.lab.kill(home)
        wait_until("it runs elsewhere", lambda: (lambda d: d["state"] == "running" and d["host"] != home)(cluster.domain("bench")), 120)
        at = {kind: min(int(e["time_ms"]) for e in cluster.events(kind, killed_ms))
              for kind in ("host-lost", "host-dead", "domain-started")}
        figures = {"total_s": at["domain-started"] - killed_ms, "detect_s": at["host-lost"] - killed_ms,
                   "fence_s": at["host-dead"] - at["host-lost"], "own_s": at["domain-started"] - at["host-dead"]}
        for name, ms in figures.items():
            parts[name].append(round(ms / 1000, 3))
        parts["raw_start_s"].append(round(pair_start, 3))
        print(f"run {run + 1}: {home} killed: " + ", ".join(f"{n} {v[-1]:.2f}" for n, v in parts.items()), flush=True)
        cluster.lab.on(home)
        cluster.wait_quorate()
        cluster.wait_online(home, timeout=90)
    return {"token1000": {"gantry": {name: statistics.median(values) for name, values in parts.items()}, "runs": parts}}


def raw_start(lab, memory, mb):
    """Seconds from QEMU's exec to an answer on QMP, in a host of the lab."""
    pair = RawPair.__new__(RawPair)
    pair.folder, pair.processes = Path(tempfile.mkdtemp(prefix="gantry-bench-")), []
    kernel, initrd = lab.guest_files()
    began = time.monotonic()
    try:
        pair.source = pair.start(lab, "hostA", "source", [
            "qemu-system-x86_64", "-accel", "tcg", "-M", "pc-q35-7.2", "-display", "none", "-nodefaults", "-no-user-config",
            "-m", f"{memory}", "-kernel", str(kernel), "-initrd", str(initrd), "-append", f"console=ttyS0 quiet gw.mb={mb}"])
        return time.monotonic() - began
    finally:
        pair.close()


def bench_domains(options):
    with Lab(f"bench-{os.getpid()}", hosts=3, build=options.build, with_parent=os.getpid()) as lab:
        cluster = Cluster(lab, print)
        cluster.create_all()
        bench = bench_migration if options.what == "migration" else bench_failover
        return bench(cluster, options.runs, options.memory, options.memory // 2)


def main():
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["migration", "failover", "log"])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", type=int, default=512, help="MiB of the guest")
    parser.add_argument("--build", default=str(TREE / "build"))
    parser.add_argument("--seconds", type=float, default=5, help="log: of each measurement")
    options = parser.parse_args()
    result = bench_log(options.build, options.runs, options.seconds) if options.what == "log" else bench_domains(options)
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
