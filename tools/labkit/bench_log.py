"""tools/bench log: commits of the replicated log, beside etcd and Pacemaker's cibadmin in the same lab.

Three hosts of a lab, their state on a disk (GANTRY_LAB_DIR, else below /var/tmp). Every client has one command under way. Rounds
of ours and of etcd alternate; what is not measured idles. Three corosyncs with real-time priority on one machine's few cores take
most of them for the turns of their token, which on hosts of their own is nobody's loss: they run with normal priority here, for
cibadmin too, and `realtime` has the figures with the priority they have in the field.
"""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from . import Lab
from .cluster import Cluster, wait_until
from .layout import LabError, host_address
from .log_load import LogLoad

COMMAND_BYTES = 200
WARM_S = 1
SLOW_MS = 5
FSYNCS = 200
QUIET_S = 0.5
BUSY_WARN = 0.1
REALTIME_ROUNDS = 2
CIBADMIN_S = 8
STATE_DIR = "/var/tmp/gantry-bench"

CIBADMIN = """
import subprocess, sys, time
count, began = 0, time.monotonic()
while time.monotonic() - began < float(sys.argv[1]):
    count += 1
    value = f"{count}-".ljust(100, "x")
    subprocess.run(["cibadmin", "--modify", "--allow-create", "--scope", "crm_config", "-X", '<cluster_property_set id="bench">'
                    f'<nvpair id="bench-x" name="bench-x" value="{value}"/></cluster_property_set>'], check=True)
print(count / (time.monotonic() - began))
"""


def middle(values, digits=3):
    return round(statistics.median(values), digits)


def fsync_ms(folder):
    """Milliseconds of each of some appends with fdatasync, as the log makes them, in a folder."""
    path = Path(folder) / "fsync.probe"
    times = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for _ in range(FSYNCS):
            os.write(file, bytes(4096))
            began = time.monotonic()
            os.fdatasync(file)
            times.append((time.monotonic() - began) * 1000)
    finally:
        os.close(file)
        path.unlink()
    return times


def busy_elsewhere():
    """Part of the machine's CPU time that is used while nothing of ours is measured."""
    def ticks():
        with open("/proc/stat") as stat:
            numbers = [int(number) for number in stat.readline().split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]
    total, idle = ticks()
    time.sleep(QUIET_S)
    total_after, idle_after = ticks()
    return round(1 - (idle_after - idle) / max(1, total_after - total), 3)


def schedule(lab, realtime):
    """Priority of every corosync of the lab."""
    policy = ["-r", "-p", "99"] if realtime else ["-o", "-p", "0"]
    for host in lab.hosts:
        lab.exec(host, ["chrt", "-a", *policy, str(lab.services(host)["corosync"]["pid"])])


class Ours:
    """Gantry's own log in a lab."""

    def __init__(self, lab, say):
        self.lab = lab
        self.cluster = Cluster(lab, say)
        self.cluster.create_all(pool=False, fence=False)
        self.cluster.wait_quorate()
        self.load = LogLoad(lab)
        self.count = 0

    def run(self, clients, seconds):
        self.count += 1
        return self.load.run("--clients", clients, "--seconds", seconds, "--warm", WARM_S, "--bytes", COMMAND_BYTES,
                             "--name", f"bench{self.count}", timeout=seconds + 90)


class Etcd:
    """Three members, one a host, with their data beside the log's."""

    def __init__(self, lab):
        self.lab = lab
        self.processes = []
        members = ",".join(f"{host}=http://{host_address(host)}:2380" for host in lab.hosts)
        for host in lab.hosts:
            address = host_address(host)
            self.processes.append(lab.spawn(host, [
                "etcd", "--name", host, "--data-dir", "/var/lib/gantry/etcd", "--logger", "zap", "--log-level", "error",
                "--listen-peer-urls", f"http://{address}:2380", "--initial-advertise-peer-urls", f"http://{address}:2380",
                "--listen-client-urls", f"http://{address}:2379", "--advertise-client-urls", f"http://{address}:2379",
                "--initial-cluster", members, "--initial-cluster-state", "new"],
                stdout=open(lab.state / f"etcd-{host}.log", "w"), stderr=subprocess.STDOUT))
        wait_until("etcd answers", self.answers, 30, interval=0.5)

    def answers(self):
        return self.call(1, 0.1, 0, check=False).returncode == 0

    def call(self, clients, seconds, warm, check=True):
        addresses = [part for host in self.lab.hosts for part in ("--address", host_address(host))]
        return self.lab.exec(self.lab.hosts[0], [
            str(self.lab.build / "tests" / "bench" / "etcd_load"), *addresses, "--clients", str(clients), "--seconds", str(seconds),
            "--warm", str(warm), "--bytes", str(COMMAND_BYTES)], check=check, timeout=seconds + 60)

    def run(self, clients, seconds):
        return json.loads(self.call(clients, seconds, WARM_S).stdout)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Pacemaker:
    """Debian's Pacemaker on the lab's corosync, with its state on the hosts' disks."""

    def __init__(self, lab):
        self.lab = lab
        self.processes = []
        own = "/var/lib/gantry/pacemaker"
        for host in lab.hosts:
            lab.exec(host, ["mkdir", "-p", *(f"{own}/{folder}" for folder in ("cib", "pengine", "blackbox", "cores"))])
            lab.exec(host, ["chown", "-R", "hacluster:haclient", own])
            lab.exec(host, ["mount", "--bind", own, "/var/lib/pacemaker"])
            self.processes.append(lab.spawn(host, ["env", "PCMK_logfile=/var/log/gantry/pacemaker.log", "PCMK_logpriority=error", "pacemakerd"],
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_until("Pacemaker has its coordinator", self.has_coordinator, 90, interval=1)
        lab.exec(lab.hosts[0], ["crm_attribute", "-n", "stonith-enabled", "-v", "false"])

    def has_coordinator(self):
        try:
            done = self.lab.exec(self.lab.hosts[0], ["crm_mon", "-1"], check=False, timeout=10)
        except LabError:
            return False      # it hangs while the cluster forms
        return f"Online: [ {' '.join(self.lab.hosts)} ]" in done.stdout and "Current DC: NONE" not in done.stdout

    def run(self, seconds):
        """Updates a second, a process each, one after another."""
        done = self.lab.exec(self.lab.hosts[0], ["/usr/bin/python3", "-ISc", CIBADMIN, str(seconds)], timeout=seconds + 30)
        return float(done.stdout)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


def summary(runs):
    return {"per_s": middle([run["per_s"] for run in runs], 1), "p50_ms": middle([run["p50_ms"] for run in runs]),
            "p99_ms": middle([run["p99_ms"] for run in runs])}


def say_run(what, run):
    print(f"{what}: {run['per_s']:.0f} commits/s, p50 {run['p50_ms']:.2f} ms, p99 {run['p99_ms']:.2f} ms", flush=True)


def measure_beside(lab, rounds, seconds):
    """Rounds of ours and of etcd in turn, then real-time scheduling, then cibadmin."""
    runs = {"clients64": [], "clients1": [], "etcd64": [], "etcd1": [], "realtime64": [], "realtime1": [], "fsync_ms": [],
            "busy_elsewhere": []}
    ours = Ours(lab, print)
    etcd = Etcd(lab)
    schedule(lab, realtime=False)
    try:
        for number in range(1, rounds + 1):
            runs["fsync_ms"].append(middle(fsync_ms(lab.host_path("hostA", "/var/lib/gantry"))))
            for name, who, clients in (("clients64", ours, 64), ("etcd64", etcd, 64), ("clients1", ours, 1), ("etcd1", etcd, 1)):
                runs["busy_elsewhere"].append(busy_elsewhere())
                runs[name].append(who.run(clients, seconds))
                say_run(f"round {number}, {name}", runs[name][-1])
    finally:
        etcd.stop()
    schedule(lab, realtime=True)
    for _ in range(REALTIME_ROUNDS):
        for name, clients in (("realtime64", 64), ("realtime1", 1)):
            runs[name].append(ours.run(clients, seconds))
            say_run(name, runs[name][-1])
    schedule(lab, realtime=False)
    pacemaker = Pacemaker(lab)
    try:
        runs["cibadmin_per_s"] = [round(pacemaker.run(CIBADMIN_S / 2), 1) for _ in range(2)]
    finally:
        pacemaker.stop()
    print(f"cibadmin: {runs['cibadmin_per_s']} updates/s", flush=True)
    return runs


def measure_slow(build, rounds, seconds):
    """A lab whose disks need SLOW_MS longer for each transaction of the log."""
    os.environ["GANTRY_TEST_FSYNC_DELAY_MS"] = str(SLOW_MS)
    try:
        with Lab(f"bench-slow-{os.getpid()}", hosts=3, build=build, with_parent=os.getpid()) as lab:
            ours = Ours(lab, lambda text: None)
            schedule(lab, realtime=False)
            runs = []
            for _ in range(rounds):
                runs.append(ours.run(64, seconds))
                say_run(f"{SLOW_MS} ms slower fsync", runs[-1])
            return runs
    finally:
        del os.environ["GANTRY_TEST_FSYNC_DELAY_MS"]


def versions():
    def first_line(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return {"corosync": first_line("/usr/sbin/corosync", "-v"), "pacemaker": first_line("/usr/sbin/pacemakerd", "--version"),
            "etcd": first_line("/usr/bin/etcd", "--version")}


def targets(result):
    """(what, figure, target, reached)"""
    commits, alone, fsync = result["clients64"]["per_s"], result["clients1"]["p50_ms"], result["fsync_p50_ms"]
    return [
        ("64 clients, commits/s", commits, "at least 8000", commits >= 8000),
        ("64 clients beside etcd", f"{commits / result['etcd']['per_s']:.2f} x", "ahead", commits > result["etcd"]["per_s"]),
        ("1 client, p50 ms", alone, f"at most 1.5 + the disk's {fsync}", alone <= 1.5 + fsync),
        (f"64 clients, fsync {SLOW_MS} ms slower, commits/s", result["slow_fsync"]["per_s"], "at least 4000",
         result["slow_fsync"]["per_s"] >= 4000),
        ("64 clients beside cibadmin", f"{commits / result['cibadmin']['per_s']:.0f} x", "at least 100 x",
         commits >= 100 * result["cibadmin"]["per_s"]),
    ]


def bench_log(build, rounds, seconds):
    os.environ.setdefault("GANTRY_LAB_DIR", STATE_DIR)
    with Lab(f"bench-log-{os.getpid()}", hosts=3, build=build, with_parent=os.getpid()) as lab:
        runs = measure_beside(lab, rounds, seconds)
    runs["slow_fsync"] = measure_slow(build, max(1, rounds // 2), seconds)
    etcd = {**summary(runs["etcd64"]), "clients1": summary(runs["etcd1"])}
    result = {"clients64": summary(runs["clients64"]), "clients1": summary(runs["clients1"]), "fsync_p50_ms": middle(runs["fsync_ms"]),
              "cibadmin": {"per_s": middle(runs["cibadmin_per_s"], 1)}, "etcd": etcd,
              "slow_fsync": {**summary(runs["slow_fsync"]), "added_ms": SLOW_MS},
              "realtime": {"clients64": summary(runs["realtime64"]), "clients1": summary(runs["realtime1"])},
              "command_bytes": COMMAND_BYTES, "seconds": seconds, "cores": os.cpu_count(), "corosync_scheduling": "normal",
              "versions": versions(), "busy_elsewhere": middle(runs["busy_elsewhere"]), "runs": runs}
    result["targets"] = []
    for what, figure, target, reached in targets(result):
        print(f"{what}: {figure} ({target}: {'reached' if reached else 'NOT reached'})")
        result["targets"].append({"what": what, "figure": figure, "target": target, "reached": reached})
    if result["busy_elsewhere"] > BUSY_WARN:
        print(f"other work used {result['busy_elsewhere']:.0%} of this machine's CPU time between the measurements: only the ratios mean much")
    return result
