"""Two hosts: the loss of one leaves exactly half of the voters, who go on alone once the other is proven dead (docs/log.md)."""

import subprocess
import threading
import time

import pytest

from conftest import make_lab
from labkit.cluster import STORE, Cluster, wait_until
from labkit.layout import LabError, host_address

NO_QUORUM = 106
GUEST = "web1"


@pytest.fixture(scope="module")
def cluster():
    with make_lab("two-hosts", hosts=2) as lab:
        cluster = Cluster(lab)
        cluster.create_all()
        cluster.add_guest(GUEST, host="hostB")
        yield cluster


@pytest.fixture(autouse=True)
def whole(cluster):
    """Each scenario finds both hosts online and voting, and the guest running."""
    cluster.lab.heal()
    cluster.lab.power("fail off")
    for host in cluster.lab.status()["hosts"]:
        if host["power"] != "on":
            cluster.lab.on(host["name"])
    wait_both_vote(cluster)
    cluster.wait_state(GUEST, "running", 60)


def other(host):
    return "hostB" if host == "hostA" else "hostA"


def status(cluster, host):
    return cluster.json("cluster", "status", host=host)


def words(cluster, host):
    try:
        return status(cluster, host).get("log_state", "")
    except LabError:
        return ""      # its clusterd is only just starting


def voters(cluster, host):
    try:
        now = status(cluster, host)
    except LabError:
        return []
    return [m["name"] for m in now["members"] if m.get("voter") and m.get("synced")] if now.get("quorate") else []


def wait_both_vote(cluster, timeout=90):
    for host in cluster.lab.hosts:
        wait_until(f"both vote, as {host} sees it", lambda: len(voters(cluster, host)) == 2, timeout)
    for host in cluster.lab.hosts:
        cluster.wait_online(host, timeout)


def pools(cluster, host):
    return {pool["name"] for pool in cluster.json("pool", "list", host=host)}


def power(cluster, host):
    return next(h["power"] for h in cluster.lab.status()["hosts"] if h["name"] == host)


def move_to(cluster, host):
    if cluster.domain(GUEST)["host"] != host:
        cluster.ctl("migrate", GUEST, host)
    cluster.wait_state(GUEST, "running", 30, host)


def leader(cluster):
    return next(m["name"] for m in status(cluster, "hostA")["members"] if m.get("leader"))


def runs_alone(cluster, host, lost_at):
    """The domain of the lost host runs on `host`; seconds from the loss to that, and to its guest's first word."""
    cluster.wait_state(GUEST, "running", 90, host)
    running = time.monotonic()
    assert cluster.lab.observer.wait_tick(cluster.guests[GUEST], since=running, timeout=60)
    return running - lost_at, time.monotonic() - lost_at


@pytest.mark.parametrize("which", ["leader", "other", "next-leader"])
def test_one_loses_its_power_and_the_other_goes_on(cluster, which):
    """Of the lower and the higher node id, leading or not: who survives leads from then on."""
    lost = other(leader(cluster)) if which == "other" else leader(cluster)
    left = other(lost)
    move_to(cluster, lost)
    began = time.monotonic()
    cluster.lab.kill(lost)
    running, ticks = runs_alone(cluster, left, began)
    print(f"{which} {lost} lost: running after {running:.1f} s, first tick of its guest after {ticks:.1f} s")
    assert voters(cluster, left) == [left]
    cluster.ctl("pool", "add", f"alone-{which}", "dir:/srv", host=left)
    assert cluster.host(lost, left)["state"] == "dead"
    # One proof is enough: the leader does not ask for another one.
    offs = [e for e in cluster.lab.events() if e["event"] == "power" and e["command"] == f"off {lost}" and e["monotonic"] > began]
    assert len(offs) <= 1, offs
    cluster.lab.on(lost)
    wait_both_vote(cluster)
    assert f"alone-{which}" in pools(cluster, lost)
    shown = cluster.ctl("cluster", "status", host=lost).stdout
    assert "2 votes, 2 needed" in shown, shown
    for host in (lost, left):
        move_to(cluster, host)


def test_a_clusterd_that_is_away_is_not_the_loss_of_its_host(cluster):
    """One voter of two is missing, but its corosync is in the ring: nobody is fenced."""
    move_to(cluster, "hostB")
    boots = {h["name"]: h["boots"] for h in cluster.lab.status()["hosts"]}
    cluster.lab.service("hostB", "stop", "clusterd")
    said = wait_until("hostA says so", lambda: (lambda text: text if "corosync runs there" in text else None)(words(cluster, "hostA")), 15)
    assert "1 of 2 voters is here (hostA); hostB is missing" in said
    time.sleep(2)
    assert power(cluster, "hostB") == "on"
    cluster.lab.service("hostB", "start", "clusterd")
    wait_both_vote(cluster)
    for host in cluster.lab.hosts:
        cluster.lab.service(host, "restart", "clusterd")
        wait_both_vote(cluster)
    assert boots == {h["name"]: h["boots"] for h in cluster.lab.status()["hosts"]}
    assert cluster.domain(GUEST)["host"] == "hostB"


class Writer(threading.Thread):
    """Adds pools on one host, one after the other, and keeps the names of those that were acknowledged."""

    def __init__(self, cluster, host):
        super().__init__(daemon=True)
        self.cluster, self.host = cluster, host
        self.acknowledged, self.stop = [], threading.Event()

    def run(self):
        for number in range(20):
            name = f"{self.host}-{number}".lower()
            try:
                if self.cluster.ctl("pool", "add", name, "dir:/srv", host=self.host, check=False).returncode == 0:
                    self.acknowledged.append(name)
            except LabError:
                return         # the host is off
            if self.stop.wait(0.4):
                return


def part(cluster, cut):
    """cut: the host whose cable is cut (it can fence nobody); or "between": both still reach the power controller."""
    if cut != "between":
        cluster.lab.cut(cut)
        return
    for host in cluster.lab.hosts:
        cluster.lab.exec(host, ["ip", "route", "add", "blackhole", host_address(other(host))])


def unite(cluster, host):
    cluster.lab.heal()
    cluster.lab.exec(host, ["ip", "route", "del", "blackhole", host_address(other(host))], check=False)


@pytest.mark.parametrize("cut", ["hostA", "hostB", "between"])
def test_of_two_halves_one_survives(cluster, cut):
    left = "hostB" if cut == "hostA" else "hostA"
    lost = other(left)
    move_to(cluster, lost)
    writers = [Writer(cluster, host) for host in cluster.lab.hosts]
    for writer in writers:
        writer.start()
    time.sleep(1)
    began = time.monotonic()
    part(cluster, cut)
    wait_until(f"{lost} is powered off", lambda: power(cluster, lost) == "off", 40)
    fenced = time.monotonic() - began
    running, ticks = runs_alone(cluster, left, began)
    for writer in writers:
        writer.stop.set()
        writer.join(100)
    assert power(cluster, left) == "on"
    print(f"cut {cut}: {lost} fenced after {fenced:.1f} s, running on {left} after {running:.1f} s, tick after {ticks:.1f} s")
    cluster.ctl("pool", "add", f"after-{cut}".lower(), "dir:/srv", host=left)
    unite(cluster, left)
    cluster.lab.on(lost)
    wait_both_vote(cluster)
    acknowledged = {f"after-{cut}".lower()}.union(*(writer.acknowledged for writer in writers))
    assert len(acknowledged) > 2
    for host in cluster.lab.hosts:
        assert acknowledged <= pools(cluster, host)
    for name in acknowledged:
        cluster.ctl("pool", "delete", name)


def test_one_that_wakes_alone_waits_for_a_person(cluster):
    """All power is lost, one host comes back: it may have slept through what the other did, and says so."""
    cluster.ctl("pool", "add", "before-dark", "dir:/srv")
    for host in cluster.lab.hosts:
        cluster.lab.kill(host)
    cluster.lab.on("hostB")
    said = wait_until("hostB says what it waits for",
                      lambda: (lambda text: text if "just begun" in text else None)(words(cluster, "hostB")), 30)
    assert "1 of 2 voters is here (hostB); hostA is missing" in said and "clusterctl fence confirm hostA --yes" in said
    refused = cluster.ctl("pool", "add", "dark", "dir:/srv", host="hostB", check=False)
    assert refused.returncode == NO_QUORUM and "fence confirm hostA" in refused.stderr
    time.sleep(15)
    assert not voters(cluster, "hostB"), "it must not go on by itself"
    assert cluster.ctl("fence", "confirm", "hostA", host="hostB", check=False).returncode != 0, "only with --yes"
    assert not voters(cluster, "hostB")
    began = time.monotonic()
    cluster.ctl("fence", "confirm", "hostA", "--yes", host="hostB")
    running, ticks = runs_alone(cluster, "hostB", began)
    print(f"confirmed: running after {running:.1f} s, tick after {ticks:.1f} s")
    assert "before-dark" in pools(cluster, "hostB")
    cluster.ctl("pool", "add", "light", "dir:/srv", host="hostB")
    cluster.lab.on("hostA")
    wait_both_vote(cluster)
    assert {"before-dark", "light"} <= pools(cluster, "hostA")
    assert cluster.domain(GUEST)["host"] == "hostB"


def test_without_a_proof_nobody_goes_on(cluster):
    move_to(cluster, "hostB")
    cluster.lab.power("fail on")
    cluster.lab.kill("hostB")
    said = wait_until("hostA says that the fence failed",
                      lambda: (lambda text: text if "could not be proven dead" in text else None)(words(cluster, "hostA")), 40)
    assert "hostB" in said and "clusterctl fence confirm hostB --yes" in said
    refused = cluster.ctl("pool", "add", "unproven", "dir:/srv", host="hostA", check=False)
    assert refused.returncode == NO_QUORUM and "could not be proven dead" in refused.stderr, refused.stderr
    time.sleep(12)
    assert not voters(cluster, "hostA") and cluster.domain(GUEST, "hostA")["host"] == "hostB"
    began = time.monotonic()
    cluster.lab.power("fail off")
    running, _ = runs_alone(cluster, "hostA", began)
    print(f"the fence device works again: running after {running:.1f} s")
    assert voters(cluster, "hostA") == ["hostA"]


# ---- with a quorum device (corosync-qnetd in the hub). These come last: the device stays in corosync.conf.

DEVICE = """\
\tdevice {
\t\tmodel: net
\t\tvotes: 1
\t\ttimeout: 4000
\t\tsync_timeout: 8000
\t\tnet {
\t\t\thost: %s
\t\t\ttls: off
\t\t\talgorithm: ffsplit
\t\t}
\t}
""" % STORE


class Device:
    """The server in the hub, and each powered host's corosync-qdevice, which here no service manager starts."""

    def __init__(self, cluster):
        self.lab = cluster.lab
        self.server = None
        self.clients = {}
        self.serve()

    def start(self, spawn, name):
        return spawn(["sh", "-c", f"mkdir -p /run/{name} && exec {name} -f{' -s off' if name.endswith('netd') else ''}"],
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def serve(self):
        self.server = self.start(self.lab.spawn_in_hub, "corosync-qnetd")

    def stop_serving(self):
        self.server.kill()
        self.server.wait()

    def attend(self):
        """Every host that has power gets the device's vote."""
        for host in self.lab.hosts:
            client = self.clients.get(host)
            if client is None or client.poll() is not None:
                self.clients[host] = self.start(lambda argv, host=host, **popen: self.lab.spawn(host, argv, **popen), "corosync-qdevice")
        for host in self.lab.hosts:
            wait_until(f"{host} has the device's vote", lambda: "A,V" in self.lab.exec(
                host, ["corosync-quorumtool", "-s"], check=False).stdout, 40, 0.5)
        time.sleep(1.5)    # until clusterd has asked

    def stop(self):
        for process in (self.server, *self.clients.values()):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def device(cluster):
    for host in cluster.lab.hosts:
        path = cluster.lab.host_path(host, "/etc/corosync/corosync.conf")
        text = path.read_text()
        assert "\ttwo_node: 1\n\twait_for_all: 1\n}" in text
        path.write_text(text.replace("\ttwo_node: 1\n\twait_for_all: 1\n", DEVICE))
    cluster.lab.exec("hostA", ["corosync-cfgtool", "-R"])
    device = Device(cluster)
    yield device
    device.stop()


@pytest.mark.parametrize("cut", ["hostA", "between"])
def test_the_half_with_the_devices_vote_survives(cluster, device, cut):
    """Cut off from all, the lower node id does not win; with both in reach the device chooses (the lower one)."""
    device.attend()
    left = "hostB" if cut == "hostA" else "hostA"
    lost = other(left)
    move_to(cluster, lost)
    began = time.monotonic()
    part(cluster, cut)
    wait_until(f"{lost} is powered off", lambda: power(cluster, lost) == "off", 60)
    fenced = time.monotonic() - began
    running, ticks = runs_alone(cluster, left, began)
    assert power(cluster, left) == "on"
    print(f"device, cut {cut}: {lost} fenced after {fenced:.1f} s, running on {left} after {running:.1f} s, tick after {ticks:.1f} s")
    unite(cluster, left)
    cluster.lab.on(lost)
    wait_both_vote(cluster)
    assert "ffsplit" in cluster.lab.host_path(left, "/etc/corosync/corosync.conf").read_text()
    assert status(cluster, left)["log_state"] == "normal", "the device's vote is no host that is unknown"


def test_without_the_devices_vote_nobody_goes_on(cluster, device):
    device.attend()
    move_to(cluster, "hostB")
    device.stop_serving()
    time.sleep(6)
    assert len(voters(cluster, "hostA")) == 2, "the hosts alone are quorum enough"
    cluster.lab.kill("hostB")
    said = wait_until("hostA says what it waits for",
                      lambda: (lambda text: text if "quorum device" in text else None)(words(cluster, "hostA")), 30)
    assert "has not given its vote" in said and "fence confirm hostB" in said
    time.sleep(12)
    assert not voters(cluster, "hostA") and cluster.domain(GUEST, "hostA")["host"] == "hostB"
    began = time.monotonic()
    device.serve()
    running, _ = runs_alone(cluster, "hostA", began)
    print(f"device back: running after {running:.1f} s")
