"""Four hosts that fall apart into two halves, without and with a quorum device, and the loss of two of them one after the other."""

import time

import pytest

from conftest import make_lab
from failover import Watch, at_home, look, make_cluster, power, qemus, whole_again
from labkit.cluster import wait_until
from labkit.layout import host_address
from test_two_hosts import DEVICE, Device

HOMES = {"web1": "hostA", "web3": "hostC", "web4": "hostD"}
SELF_FENCE_S = 20         # agent/core/selffence.h
HALVES = (("hostA", "hostB"), ("hostC", "hostD"))
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster():
    with make_lab("failover-four", hosts=4) as lab:
        yield make_cluster(lab, HOMES)


@pytest.fixture(scope="module")
def device(cluster):
    for host in cluster.lab.hosts:
        path = cluster.lab.host_path(host, "/etc/corosync/corosync.conf")
        text = path.read_text()
        assert "quorum {" in text and "device" not in text
        path.write_text(text.replace("provider: corosync_votequorum\n", "provider: corosync_votequorum\n" + DEVICE))
    cluster.lab.exec("hostA", ["corosync-cfgtool", "-R"])
    device = Device(cluster)
    yield device
    device.stop()


def part(cluster, action, hosts=()):
    """Each half still reaches the store and the power controller, not the other half."""
    for left, right in (HALVES, HALVES[::-1]):
        for host in left:
            for other in right:
                if power(cluster, host) == "on":
                    cluster.lab.exec(host, ["ip", "route", action, "blackhole", host_address(other)], check=False)


@pytest.fixture(autouse=True)
def homes(cluster):
    part(cluster, "del")
    whole_again(cluster)
    at_home(cluster, HOMES)


def one_half_goes_on(cluster, watch):
    part(cluster, "add")
    def halves_off():
        return [half for half in HALVES if all(power(cluster, host) == "off" for host in half)]
    lost = wait_until("one half is powered off", halves_off, 60)[0]
    left = next(half for half in HALVES if half != lost)
    print(f"{lost} fenced after {time.monotonic() - watch.began:.1f} s")
    moved = {guest: 1 for guest, home in HOMES.items() if home in lost}
    watch.check(started=moved, not_on=lost, seen_from=left[0])
    print(f"all run after {time.monotonic() - watch.began:.1f} s")
    assert [power(cluster, host) for host in left] == ["on", "on"]
    part(cluster, "del")


def test_two_and_two_without_a_device_start_nothing(cluster):
    """Neither half may go on: each ends its domains in time, as it cannot know of the other. United, they run once more."""
    watch = Watch(cluster)
    part(cluster, "add")
    wait_until("all have ended by themselves", lambda: not any(qemus(cluster, guest) for guest in HOMES), SELF_FENCE_S + 10, interval=1)
    print(f"all have ended after {time.monotonic() - watch.began:.1f} s")
    for guest in HOMES:
        for host in ("hostA", "hostC"):
            assert look(cluster, guest, host)["starts"] == watch.before[guest]["starts"], f"{guest} was started without a quorum"
    part(cluster, "del")
    watch.check(started=dict.fromkeys(HOMES, 1))
    assert {host: power(cluster, host) for host in cluster.lab.hosts} == dict.fromkeys(cluster.lab.hosts, "on")


def test_two_and_two_with_a_device(cluster, device):
    device.attend()
    one_half_goes_on(cluster, Watch(cluster))


def test_the_new_host_loses_power_during_the_failover(cluster, device):
    """Half of the hosts and the device are left, both lost ones are proven dead: the domain runs on a third."""
    device.attend()
    watch = Watch(cluster)
    cluster.lab.kill("hostD")
    def placed():
        domain = look(cluster, "web4", "hostB")
        return domain["host"] if domain and domain.get("host", "") not in ("", "hostD") else None
    new = wait_until("web4 has a new owner", placed, 60, interval=0.02)
    cluster.lab.kill(new)
    print(f"web4 was just placed on {new}")
    others = {guest: 1 for guest, home in HOMES.items() if home == new}
    watch.check(started={"web4": (1, 2), **others}, not_on=["hostD", new])
