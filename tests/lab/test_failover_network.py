"""Cables: a host alone against the rest, one direction only, a plug that is loose."""

import time

import pytest

from conftest import make_lab
from failover import Watch, at_home, boots, make_cluster, power, qemus, quorate_host, whole_again
from labkit.cluster import wait_until

HOMES = {"web1": "hostA", "web2": "hostB", "web3": "hostC"}
SELF_FENCE_S = 20         # agent/core/selffence.h


@pytest.fixture(scope="module")
def cluster():
    with make_lab("failover-network") as lab:
        yield make_cluster(lab, HOMES)


@pytest.fixture(autouse=True)
def homes(cluster):
    whole_again(cluster)
    at_home(cluster, HOMES)


@pytest.mark.parametrize("host, direction", [("hostA", "both"), ("hostB", "out"), ("hostC", "in")])
def test_a_host_alone_is_fenced_and_its_domain_runs_once(cluster, host, direction):
    """Also if it hears and is not heard, or is heard and does not hear: a ring needs both."""
    watch = Watch(cluster)
    before = boots(cluster)
    guest = next(name for name, home in HOMES.items() if home == host)
    cluster.lab.cut(host, direction)
    print(f"{host} cut {direction}: {guest} runs after {watch.wait_elsewhere(guest):.2f} s")
    assert power(cluster, host) == "off"
    watch.check(started={guest: 1}, not_on=[host])
    assert boots(cluster) == before, "of the rest nobody was fenced"


def test_a_host_alone_that_cannot_be_fenced_ends_its_domain_by_itself(cluster):
    """Nothing is started without a proof; the cable back, the domain runs again."""
    watch = Watch(cluster)
    cluster.lab.power("fail on")
    cluster.lab.cut("hostA")
    began = time.monotonic()
    wait_until("hostA has ended its domain", lambda: not qemus(cluster, "web1"), SELF_FENCE_S + 10, interval=0.5)
    print(f"hostA has ended its domain after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began > SELF_FENCE_S - 6, "its clusterd was still heard"
    assert cluster.domain("web1", "hostB")["starts"] == watch.before["web1"]["starts"], "started without a proof"
    cluster.lab.heal()
    wait_until("hostA is a member again", lambda: cluster.is_quorate("hostA"), 30)
    cluster.lab.power("fail off")
    watch.check(started={"web1": 1})
    assert power(cluster, "hostA") == "on"


def test_a_flapping_link_starts_no_domain_twice(cluster):
    watch = Watch(cluster)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        cluster.lab.cut("hostB")
        time.sleep(0.7)
        cluster.lab.heal("hostB")
        time.sleep(0.7)
    time.sleep(3)         # what corosync has yet to find out
    cluster.wait_quorate()
    fenced = power(cluster, "hostB") == "off"
    if not fenced:
        cluster.wait_online("hostB")
    assert quorate_host(cluster)
    watch.check(started={"web2": 1} if fenced else {}, not_on=["hostB"] if fenced else [])
    assert [power(cluster, host) for host in ("hostA", "hostC")] == ["on", "on"]
