"""What was acknowledged is never lost and never done twice: 64 clients write while daemons, hosts and a disk fail.

Every acknowledged command is looked for in the log on every host's disk, where each of these loads stands whole, and the newest ones
in every host's state besides: there an event may be only once, however often its client had to ask.
"""

import contextlib
import json
import shutil
import sqlite3
import threading
import time
from collections import Counter

import pytest

from conftest import make_lab
from labkit.cluster import Cluster, wait_until
from labkit.log_load import LogLoad

DISK = "/var/lib/gantry"
CLIENTS = 64
EVENT_NOTE = 35           # Command.event_note (proto/model.proto)


@pytest.fixture(scope="module")
def cluster():
    with make_lab("log") as lab:
        cluster = Cluster(lab)
        cluster.create_all(pool=False, fence=False)
        cluster.load = LogLoad(lab)
        yield cluster
        cluster.load.kill()


# ---- the load

class Acked:
    """The file in which the load writes each command that was acknowledged, after it was."""

    def __init__(self, path):
        self.path = path

    def count(self):
        return self.path.read_bytes().count(b"\n") if self.path.exists() else 0

    def wait(self, count):
        wait_until(f"{count} commands are acknowledged", lambda: self.count() >= count, 60, interval=0.02)

    def commands(self):
        """(client, seq) -> text"""
        lines = [line.split(" ", 2) for line in self.path.read_text().splitlines()]
        return {(client, int(seq)): text for client, seq, text in lines}


def start_load(cluster, tmp_path, name, commands):
    acked = Acked(tmp_path / f"{name}.acked")
    cluster.load.link()
    cluster.load.start("--clients", CLIENTS, "--commands", commands, "--name", name, "--acked", acked.path)
    return acked


def end_load(cluster, acked, commands):
    figures = cluster.load.wait(timeout=90)
    assert acked.count() == len(acked.commands()) == commands, "each is acknowledged once"
    return figures


# ---- what the hosts have

def status(cluster, host):
    return cluster.json("cluster", "status", host=host)


def wait_synced(cluster, count=3, host="hostA"):
    def synced():
        done = cluster.ctl("cluster", "status", "-o", "json", host=host, check=False)
        members = json.loads(done.stdout)["members"] if done.returncode == 0 else []
        return sum(member.get("synced", False) for member in members) == count
    wait_until(f"{count} hosts are synced", synced, 40)


def leader(cluster):
    return next(member["name"] for member in status(cluster, "hostA")["members"] if member.get("leader"))


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """The fields of a packed message: number -> value (the last, if there are several)."""
    found, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        assert tag & 7 in (0, 2), "a Command has numbers, texts and messages only"
        value, at = varint(data, at)
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        found[tag >> 3] = value
    return found


def disk_of(cluster, host):
    """The folder of the host's log as it is mounted there now."""
    pid = next(known["pid"] for known in cluster.lab.status()["hosts"] if known["name"] == host)
    return f"/proc/{pid}/root{DISK}"


def log_on_disk(cluster, host, tmp_path):
    """index -> packed command. From a copy: clusterd has locked the original for itself."""
    folder = tmp_path / f"{host}-{time.monotonic_ns()}"
    folder.mkdir()
    for tail in ("", "-wal"):
        shutil.copy(f"{disk_of(cluster, host)}/clusterd.db{tail}", folder)
    with sqlite3.connect(folder / "clusterd.db") as database:
        return dict(database.execute("SELECT idx, command FROM entries"))


def notes_of(log, name):
    """(client, seq) -> [(index, text)] of a load's notes in a log."""
    found = {}
    for index, command in sorted(log.items()):
        parts = fields(command)
        client = parts.get(5, b"").decode()
        if EVENT_NOTE in parts and client.startswith(f"{name}-"):
            text = fields(parts[EVENT_NOTE]).get(4, b"").decode()
            found.setdefault((client, parts[6]), []).append((index, text))
    return found


def check_logs(acked, logs, name):
    """Every acknowledged command stands in every log, and the logs are one."""
    for host, log in logs.items():
        notes = notes_of(log, name)
        missing = [key for key, text in acked.items() if text not in [found for _, found in notes.get(key, [])]]
        assert not missing, f"{host} has lost {len(missing)} of {len(acked)} acknowledged commands: {missing[:5]}"
    common = set.intersection(*(set(log) for log in logs.values()))
    assert len(common) >= len(acked)
    differ = [index for index in common if len({log[index] for log in logs.values()}) > 1]
    assert not differ, f"the logs differ at {differ[:5]}"


def check_events(acked, log, events, name, host):
    """Those of the acknowledged commands that the state still remembers are in it once."""
    times = Counter(event["text"] for event in events)
    twice = [text for text, count in times.items() if count > 1]
    assert not twice, f"{host} has done {len(twice)} commands twice: {twice[:3]}"
    oldest = min(int(event["log_index"]) for event in events)
    for key, found in notes_of(log, name).items():
        if found[0][0] >= oldest and key in acked:
            assert times[acked[key]] == 1, f"{host} has not done {key}, which stands in its log"


def check_all(cluster, acked, name, tmp_path):
    wait_synced(cluster)
    commands = acked.commands()
    wait_until("all hosts have applied the same", lambda: len({(now["commit_index"], now["applied_index"]) for now in (
        status(cluster, host) for host in cluster.lab.hosts)}) == 1, 20)
    logs = {host: log_on_disk(cluster, host, tmp_path) for host in cluster.lab.hosts}
    check_logs(commands, logs, name)
    for host, log in logs.items():
        check_events(commands, log, cluster.events("load", host=host), name, host)
    repeated = sum(len(found) > 1 for found in notes_of(logs["hostA"], name).values())
    print(f"{name}: {len(commands)} acknowledged, {repeated} of them twice in the log and done once")


# ---- the tests

def kill_everywhere(cluster):
    """SIGKILL to every clusterd at the same moment."""
    killers = [threading.Thread(target=cluster.lab.service, args=(host, "kill", "clusterd")) for host in cluster.lab.hosts]
    for killer in killers:
        killer.start()
    for killer in killers:
        killer.join()


def test_every_clusterd_is_killed_at_once_again_and_again(cluster, tmp_path):
    acked = start_load(cluster, tmp_path, "killed", 9000)
    for count in (1000, 3500, 6000, 8500):
        acked.wait(count)
        kill_everywhere(cluster)
    figures = end_load(cluster, acked, 9000)
    assert figures["reconnects"] >= 4 * CLIENTS and figures["repeats"] >= CLIENTS, "the load went on over the kills"
    check_all(cluster, acked, "killed", tmp_path)


def test_a_host_and_then_the_leader_lose_power(cluster, tmp_path):
    wait_synced(cluster)
    first = leader(cluster)
    for name, victim in (("follower", next(host for host in cluster.lab.hosts if host != first)), ("leader", first)):
        acked = start_load(cluster, tmp_path, name, 3000)
        acked.wait(500)
        cluster.lab.kill(victim)
        end_load(cluster, acked, 3000)
        cluster.lab.on(victim)
        cluster.wait_online(victim, timeout=60)
        check_all(cluster, acked, name, tmp_path)


@pytest.fixture
def small_disk(cluster):
    """hostC's log is on a disk of 24 MiB. The real one gets what was written there: a log must not go back in time."""
    lab = cluster.lab
    lab.service("hostC", "stop", "clusterd")
    real = lab.host_path("hostC", DISK)
    lab.exec("hostC", ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", DISK])
    shutil.copytree(real, disk_of(cluster, "hostC"), dirs_exist_ok=True)
    lab.service("hostC", "start", "clusterd")
    wait_synced(cluster)
    yield disk_of(cluster, "hostC")
    lab.service("hostC", "stop", "clusterd")
    # Its files, not the folder: without that the host's mount goes too, and it would write to this machine's own disk.
    for file in real.glob("clusterd.db*"):
        file.unlink()
    shutil.copytree(disk_of(cluster, "hostC"), real, dirs_exist_ok=True)
    lab.exec("hostC", ["umount", DISK])
    lab.service("hostC", "start", "clusterd")
    wait_synced(cluster)


def fill(folder):
    """Takes what is free on a disk."""
    with contextlib.suppress(OSError), open(f"{folder}/filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(64 << 10))


def test_a_full_disk_stops_its_host_and_nobody_else(cluster, small_disk, tmp_path):
    acked = start_load(cluster, tmp_path, "full", 8000)
    acked.wait(500)
    fill(small_disk)
    end_load(cluster, acked, 8000)
    wait_until("hostC says so", lambda: "disk" in status(cluster, "hostC").get("log_state", ""), 10)
    text = cluster.ctl("cluster", "status", host="hostC", check=False).stdout
    assert "full" in text, text
    refused = cluster.ctl("pool", "add", "full", "dir:/srv", host="hostC", check=False)
    assert refused.returncode == 69 and "another host" in refused.stderr, refused.stderr
    cluster.ctl("pool", "add", "others", "dir:/srv", host="hostA")
    assert int(status(cluster, "hostC")["commit_index"]) < int(status(cluster, "hostA")["commit_index"]), "it takes no part any more"
    cluster.lab.exec("hostC", ["rm", f"{DISK}/filler"])
    cluster.lab.service("hostC", "restart", "clusterd")
    check_all(cluster, acked, "full", tmp_path)
