"""Daemons, QEMUs, the store and a clock that fail on hosts that live: no host is fenced for it, no domain is started that runs."""

import threading
import time

import pytest

from conftest import make_lab
from failover import Watch, at_home, boots, leader, make_cluster, power, qemus, quorate_host, whole_again
from labkit.cluster import wait_until

HOMES = {"web1": "hostA", "web2": "hostB", "web3": "hostC"}
SELF_FENCE_S = 20         # agent/core/selffence.h


@pytest.fixture(scope="module")
def cluster():
    with make_lab("failover-daemons") as lab:
        yield make_cluster(lab, HOMES)


@pytest.fixture(autouse=True)
def homes(cluster):
    whole_again(cluster)
    at_home(cluster, HOMES)


@pytest.fixture
def nobody_is_fenced(cluster, homes):
    before, began = boots(cluster), time.monotonic()
    yield
    offs = [event["command"] for event in cluster.lab.events() if event["event"] == "power-begin" and event["monotonic"] > began
            and not event["command"].startswith("status")]
    assert not offs and boots(cluster) == before, offs


def test_killed_clusterds_and_agents_cost_no_domain(cluster, nobody_is_fenced):
    watch = Watch(cluster)
    for service in ("clusterd", "gantry-agent"):
        for host in ("hostA", "hostB"):
            cluster.lab.service(host, "kill", service)
    for host in cluster.lab.hosts:
        cluster.wait_online(host)
    watch.check()


def test_an_agent_a_clusterd_and_a_qemu_that_hang_cost_no_domain(cluster, nobody_is_fenced):
    """On three hosts at once, for 10 s. The daemons are ended by their watchdogs, before the self-fence that their silence brings about."""
    watch = Watch(cluster)
    before, agent = cluster.lab.services("hostC")["clusterd"], cluster.lab.services("hostB")["gantry-agent"]
    qemu = str(qemus(cluster, "web1")["hostA"][0])
    cluster.lab.exec("hostA", ["kill", "-STOP", qemu])
    cluster.lab.service("hostB", "pause", "gantry-agent")
    cluster.lab.service("hostC", "pause", "clusterd")
    time.sleep(10)
    cluster.lab.exec("hostA", ["kill", "-CONT", qemu])
    cluster.lab.service("hostB", "cont", "gantry-agent")
    now = wait_until("it is restarted", lambda: (lambda s: s if s["pid"] and s["starts"] > before["starts"] else None)(
        cluster.lab.services("hostC")["clusterd"]), 10)
    assert now["hangs"] == before["hangs"] + 1 and now["last_exit"] == -6
    assert cluster.lab.services("hostB")["gantry-agent"]["hangs"] == agent["hangs"] + 1
    for host in cluster.lab.hosts:
        cluster.wait_online(host)
    watch.check()
    cluster.ctl("pause", "web1")
    cluster.ctl("unpause", "web1")


@pytest.mark.long
def test_a_host_is_lost_while_the_leaders_clusterd_hangs(cluster):
    """Nobody leads until the watchdog has ended it; then the failover goes on."""
    hung = leader(cluster)
    lost = next(host for host in cluster.lab.hosts if host != hung)
    guest = next(name for name, home in HOMES.items() if home == lost)
    third = next(host for host in cluster.lab.hosts if host not in (hung, lost))
    watch = Watch(cluster)
    cluster.lab.service(hung, "pause", "clusterd")
    cluster.lab.kill(lost)
    print(f"{guest} runs after {watch.wait_elsewhere(guest, seen_from=third):.2f} s")
    cluster.wait_online(hung)
    watch.check(started={guest: 1}, not_on=[lost])


class CrashLoop(threading.Thread):
    """Kills a host's clusterd as soon as it has been started, again and again."""

    def __init__(self, lab, host):
        super().__init__(daemon=True)
        self.lab, self.host = lab, host
        self.kills, self.over = 0, threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            if self.lab.services(self.host)["clusterd"]["pid"]:
                self.lab.service(self.host, "kill", "clusterd")
                self.kills += 1


@pytest.mark.long
def test_a_clusterd_that_crashes_at_each_start_while_the_store_is_away_costs_no_domain(cluster, nobody_is_fenced):
    """For longer than the self-fence takes. Its host keeps its domain; nobody is fenced for a store."""
    watch = Watch(cluster)
    loop = CrashLoop(cluster.lab, "hostB")
    loop.start()
    try:
        cluster.lab.store("kill")
        time.sleep(SELF_FENCE_S + 3)
    finally:
        loop.over.set()
        loop.join(10)
        cluster.lab.store("start")
    assert loop.kills > 15, loop.kills
    cluster.wait_online("hostB")
    watch.check()


def test_a_killed_qemu_is_started_again(cluster, nobody_is_fenced):
    watch = Watch(cluster)
    pid = qemus(cluster, "web2")["hostB"][0]
    cluster.lab.exec("hostB", ["kill", "-KILL", str(pid)])
    watch.check(started={"web2": 1}, on={"web2": "hostB"})


def test_corosync_killed_alone_starts_its_domain_at_most_once(cluster):
    """The others may fence the host before its corosync is back: they cannot know."""
    watch = Watch(cluster)
    cluster.lab.service("hostB", "kill", "corosync")
    time.sleep(5)
    fenced = power(cluster, "hostB") == "off"
    cluster.wait_quorate()
    if not fenced:
        cluster.wait_online("hostB")
    watch.check(started={"web2": 1} if fenced else {}, not_on=["hostB"] if fenced else [])


def test_a_clock_set_back_an_hour_changes_nothing(cluster):
    """The leader's, while its daemons run; a failover works as ever."""
    host = leader(cluster)
    lost = next(other for other in cluster.lab.hosts if other != host)
    guest = next(name for name, home in HOMES.items() if home == lost)
    cluster.lab.clock(host, 0)
    for service in ("gantry-agent", "clusterd"):       # not corosync: its host would be fenced for leaving
        cluster.lab.service(host, "restart", service)
    cluster.wait_online(host)
    watch, before = Watch(cluster), boots(cluster)
    cluster.lab.clock(host, -3600)
    time.sleep(5.5)         # longer than a lease's renewal
    watch.check()
    assert boots(cluster) == before
    cluster.lab.kill(lost)
    print(f"{guest} runs after {watch.wait_elsewhere(guest):.2f} s")
    watch.check(started={guest: 1}, not_on=[lost])
    cluster.ctl("ha", "set", guest, "--priority", "101", host=host)
    times = [int(event["time_ms"]) for event in cluster.events(host=host)]
    assert max(times) - times[-1] > 1_800_000, "what this host says is an hour old: the shift was in force"
    cluster.lab.clock(host, 0)
