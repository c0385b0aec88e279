"""Fence devices that fail, dawdle or lie, and a frozen host that wakes up after its domain was started elsewhere."""

import time

import pytest

from conftest import make_lab
from failover import Watch, at_home, confirm_dead, look, make_cluster, power, qemus, whole_again
from labkit.cluster import STORE, wait_until
from labkit.layout import host_address

HOMES = {"web1": "hostA", "web2": "hostB"}
LOST = "hostB"
BROKEN = ["fence_lab", f"ip={STORE}", "ipport=6231", f"plug={LOST}"]      # nobody listens there
GOOD = ["fence_lab", f"ip={STORE}", "ipport=6230", f"plug={LOST}"]


@pytest.fixture(scope="module")
def cluster():
    with make_lab("failover-fencing") as lab:
        yield make_cluster(lab, HOMES)


@pytest.fixture(autouse=True)
def homes(cluster):
    whole_again(cluster)
    at_home(cluster, HOMES)


def not_started(cluster, watch, seconds):
    """For so long the lost domain stays where it was."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        domain = look(cluster, "web2", "hostA")
        assert domain["starts"] == watch.before["web2"]["starts"] and domain["host"] == LOST, "started without a proof"
        time.sleep(0.5)


def test_the_second_level_works_slowly_where_the_first_fails(cluster):
    cluster.ctl("fence", "set", LOST, *BROKEN, "+", *GOOD)
    cluster.lab.power("delay 2")         # each of off and status
    try:
        watch = Watch(cluster)
        cluster.lab.cut(LOST)
        not_started(cluster, watch, 3)
        print(f"web2 runs after {watch.wait_elsewhere('web2'):.2f} s")
        assert power(cluster, LOST) == "off"
        watch.check(started={"web2": 1}, not_on=[LOST])
        proof = cluster.events("host-dead", host="hostA")[-1]["text"]
        assert "level 2" in proof, proof
    finally:
        cluster.ctl("fence", "set", LOST, *GOOD, host="hostA")


@pytest.fixture
def watched(cluster):
    """The host has a hardware watchdog."""
    settings = cluster.lab.host_path(LOST, "/etc/gantry/host.yaml")
    text = settings.read_text()
    settings.write_text("\n".join([line for line in text.splitlines() if not line.startswith("watchdog:")] + ["watchdog: /run/lab/watchdog", ""]))
    cluster.lab.service(LOST, "restart", "gantry-agent")
    wait_until("it is fed", lambda: next(host for host in cluster.lab.status()["hosts"] if host["name"] == LOST)["watchdog"] == "armed", 30)
    yield
    settings.write_text(text)


def test_a_frozen_host_is_dead_before_its_domain_runs_elsewhere(cluster, watched):
    """Its fence device fails; what it would write when it wakes up it cannot: its watchdog has reset it. Only then somebody vouches for it."""
    watch = Watch(cluster)
    cluster.lab.power("fail on")
    cluster.lab.freeze(LOST)
    wait_until("it is lost", lambda: cluster.host(LOST, "hostA")["state"] != "online", 20)
    not_started(cluster, watch, 3)
    wait_until("its watchdog has reset it", lambda: power(cluster, LOST) == "off", 20)
    print(f"reset {time.monotonic() - watch.began:.1f} s after the freeze")
    confirm_dead(cluster, LOST, "hostA")
    watch.check(started={"web2": 1}, not_on=[LOST])


def test_a_device_that_lies_makes_no_second_writer(cluster):
    """'Off', it says of a host that only the others do not hear: it still reaches the store."""
    watch = Watch(cluster)
    cluster.lab.power("lie on")
    others = [host for host in cluster.lab.hosts if host != LOST]
    for host in others:
        cluster.lab.exec(LOST, ["ip", "route", "add", "blackhole", host_address(host)])
    try:
        print(f"web2 runs after {watch.wait_elsewhere('web2'):.2f} s")
        began = time.monotonic()
        wait_until("the old copy is gone", lambda: LOST not in qemus(cluster, "web2"), 30, interval=0.02)
        print(f"the old copy was gone {time.monotonic() - began:.2f} s later")
        watch.check(started={"web2": 1}, not_on=[LOST], overlap=True, seen_from="hostA")
    finally:
        for host in others:
            cluster.lab.exec(LOST, ["ip", "route", "del", "blackhole", host_address(host)])
