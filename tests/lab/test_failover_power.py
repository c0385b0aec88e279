"""Hosts lose their power: one, the leader, two of three, all, the same again and again."""

import time

import pytest

from conftest import make_lab
from failover import Watch, at_home, leader, look, make_cluster, move, power, whole_again

HOMES = {"web1": "hostA", "web2": "hostB", "web3": "hostC"}


@pytest.fixture(scope="module")
def cluster():
    with make_lab("failover-power") as lab:
        yield make_cluster(lab, HOMES)


@pytest.fixture(autouse=True)
def homes(cluster):
    whole_again(cluster)
    at_home(cluster, HOMES)



def test_a_member_loses_power(cluster):
    victim = next(host for host in cluster.lab.hosts if host != leader(cluster))
    guest = next(name for name, home in HOMES.items() if home == victim)
    watch = Watch(cluster)
    cluster.lab.kill(victim)
    print(f"{victim} lost: {guest} runs after {watch.wait_elsewhere(guest):.2f} s")
    watch.check(started={guest: 1}, not_on=[victim])
    assert "host-dead" in [event["kind"] for event in cluster.events()]


def test_the_leaders_host_fails_three_times_in_a_row(cluster):
    victim = leader(cluster)
    guest = next(name for name, home in HOMES.items() if home == victim)
    for _ in range(3):
        watch = Watch(cluster)
        cluster.lab.kill(victim)
        print(f"{victim} lost: {guest} runs after {watch.wait_elsewhere(guest):.2f} s")
        watch.check(started={guest: 1}, not_on=[victim])
        cluster.lab.on(victim)
        cluster.wait_online(victim, timeout=60)
        move(cluster, guest, victim)


def test_two_of_three_lose_power_and_nothing_starts_without_quorum(cluster):
    """With one of them back there is one: what this one and the third have runs; with the other one back all do."""
    watch = Watch(cluster)
    for host in ("hostA", "hostB"):
        cluster.lab.kill(host)
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        for guest in HOMES:
            assert look(cluster, guest, "hostC")["starts"] == watch.before[guest]["starts"], f"{guest} was started without a quorum"
        time.sleep(1)
    cluster.lab.on("hostB")
    watch.check_guest("web2", (1,), seen_from="hostC")
    watch.check_guest("web3", (0,), seen_from="hostC")
    assert look(cluster, "web1", "hostC")["starts"] == watch.before["web1"]["starts"], "nobody has proven hostA dead"
    cluster.lab.on("hostA")
    watch.check(started={"web1": 1, "web2": 1}, seen_from="hostC")


def test_all_lose_power_and_start_in_another_order(cluster):
    watch = Watch(cluster)
    for host in cluster.lab.hosts:
        cluster.lab.kill(host)
    for host in ("hostC", "hostA", "hostB"):
        cluster.lab.on(host)
        time.sleep(2)
    for host in cluster.lab.hosts:
        assert power(cluster, host) == "on", f"{host} was fenced while it booted"
    cluster.wait_quorate()
    watch.check(started=dict.fromkeys(HOMES, 1))


def test_a_cold_start_with_one_host_missing(cluster):
    """It may yet come, so it is given time to boot; then it is proven dead, and its domains run elsewhere."""
    watch = Watch(cluster)
    for host in cluster.lab.hosts:
        cluster.lab.kill(host)
    began = time.monotonic()
    for host in ("hostA", "hostC"):
        cluster.lab.on(host)
    cluster.wait_quorate()
    watch.check(started=dict.fromkeys(HOMES, 1), not_on=["hostB"])
    offs = [event["monotonic"] - began for event in cluster.lab.events()
            if event["event"] == "power" and event["command"] == "off hostB" and event["monotonic"] > began]
    assert offs and offs[0] > 20, f"hostB was fenced after {offs} s: it had no time to boot"
