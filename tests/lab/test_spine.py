"""The main job: a guest that moves while it works, a host that is lost, daemons that are killed."""

import time

import pytest

from labkit.cluster import wait_until


@pytest.fixture(scope="module")
def guest(cluster):
    cluster.add_guest("web1", host="hostB")
    return "web1"


def no_fault(cluster, guest, since=None):
    faults = cluster.lab.observer.faults(cluster.guests[guest], since=since)
    assert not faults, faults[:3]


def boots_since(cluster, guest, since):
    return {tick.boot for tick in cluster.lab.observer.ticks(cluster.guests[guest], since=since)}


def test_every_host_says_the_same(cluster, guest):
    lists = [[(d["name"], d["host"], d["state"]) for d in cluster.json("list", host=host)] for host in cluster.lab.hosts]
    assert lists[0] == lists[1] == lists[2] and lists[0] == [("web1", "hostB", "running")]


def test_live_migration_keeps_the_guest_whole(cluster, guest):
    began = time.monotonic()
    done = cluster.ctl("migrate", guest, "hostC", "--bandwidth", "40M")
    assert cluster.domain(guest)["host"] == "hostC"
    for word in ("round", "remaining"):
        assert word in done.stderr, done.stderr
    time.sleep(1)
    assert len(boots_since(cluster, guest, began)) == 1, "the guest must not have booted again"
    no_fault(cluster, guest)
    assert "VERIFY ok" in cluster.console(guest, "verify", "VERIFY")
    # nothing of it is left at the source
    assert not cluster.lab.exec("hostB", ["pgrep", "-f", "guest=web1"], check=False).stdout.strip()


def test_pause_and_unpause(cluster, guest):
    cluster.ctl("pause", guest)
    assert cluster.domain(guest)["state"] == "paused"
    time.sleep(0.3)
    silent = time.monotonic()
    time.sleep(0.5)
    assert not cluster.lab.observer.ticks(cluster.guests[guest], since=silent), "a paused guest ticks"
    cluster.ctl("unpause", guest)
    assert cluster.domain(guest)["state"] == "running"
    assert cluster.lab.observer.wait_tick(cluster.guests[guest], timeout=10)


@pytest.mark.parametrize("host", ["hostC", "hostA"])
def test_killed_daemons_leave_the_guest_running_and_managed(cluster, guest, host):
    """SIGKILL to clusterd and agent of the guest's host, then of another one."""
    began = time.monotonic()
    for service in ("clusterd", "gantry-agent"):
        cluster.lab.service(host, "kill", service)
    cluster.wait_online(host)
    wait_until("the domain is known as running", lambda: cluster.domain(guest)["state"] == "running", 20)
    assert len(boots_since(cluster, guest, began)) == 1
    gap = cluster.lab.observer.gaps(since=began, guest=cluster.guests[guest])[0]
    assert gap.seconds < 2, f"the guest was silent for {gap.seconds} s"
    cluster.ctl("pause", guest)
    cluster.ctl("unpause", guest)
    no_fault(cluster, guest)


def test_corosync_killed_alone_is_healed(cluster, guest):
    began = time.monotonic()
    home = cluster.domain(guest)["host"]
    other = next(host for host in cluster.lab.hosts if host != home)
    cluster.lab.service(other, "kill", "corosync")
    time.sleep(5)
    # Its corosync was away: the others may have fenced it, which leaves it off, or found it back in time.
    if next(h for h in cluster.lab.status()["hosts"] if h["name"] == other)["power"] != "on":
        cluster.lab.on(other)
    cluster.wait_quorate()
    cluster.wait_online(other, timeout=60)
    assert cluster.domain(guest)["host"] == home and len(boots_since(cluster, guest, began)) == 1


def test_lost_host_comes_back_elsewhere_once(cluster, guest):
    home = cluster.domain(guest)["host"]
    starts = int(cluster.domain(guest)["starts"])
    killed = time.monotonic()
    cluster.lab.kill(home)
    domain = wait_until("it runs elsewhere", lambda: (lambda d: d if d and d["state"] == "running" and d["host"] != home
                                                      else None)(cluster.domain(guest)), 90)
    assert cluster.lab.observer.wait_tick(cluster.guests[guest], since=killed + 0.5, timeout=60)
    assert int(domain["starts"]) == starts + 1
    assert len(boots_since(cluster, guest, killed + 0.5)) == 1, "two of it ran"
    kinds = [event["kind"] for event in cluster.events()]
    assert "host-dead" in kinds
    no_fault(cluster, guest, since=killed + 0.5)
    assert "disk" in cluster.console(guest, "status", "STATUS", timeout=60)
    cluster.lab.on(home)
    cluster.wait_online(home, timeout=60)


def test_no_quorum_is_said_at_once(cluster, guest):
    """Two of three hosts without power: the last one accepts nothing and says why (exit status 106)."""
    here = cluster.domain(guest)["host"]
    others = [host for host in cluster.lab.hosts if host != here]
    for host in others:
        cluster.lab.kill(host)
    try:
        done = wait_until("status 106", lambda: (lambda d: d if d.returncode == 106 else None)(
            cluster.ctl("pause", guest, host=here, check=False, timeout=40)), 40)
        assert "quorum" in done.stderr and others[0] in done.stderr, done.stderr
    finally:
        for host in others:
            cluster.lab.on(host)
        cluster.wait_quorate()
        for host in cluster.lab.hosts:
            cluster.wait_online(host, timeout=90)


def test_shutdown_and_destroy(cluster, guest):
    wait_until("it runs", lambda: cluster.domain(guest)["state"] == "running", 60)
    cluster.lab.observer.wait_tick(cluster.guests[guest], timeout=60)
    cluster.ctl("shutdown", guest, timeout=90)
    assert cluster.domain(guest)["state"] == "stopped"
    cluster.ctl("start", guest)
    assert cluster.domain(guest)["state"] == "running"
    cluster.ctl("destroy", guest)
    assert cluster.domain(guest)["state"] == "stopped"
    cluster.ctl("undefine", guest)
    assert cluster.domain(guest) is None
    cluster.ctl("vol", "delete", f"vms/{guest}")
    assert not cluster.json("vol", "list")
