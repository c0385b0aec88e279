"""What users set: order and readiness, who gives way, automatic action off, a host fenced by hand, a lost pool, a hung guest, a
proof by time, a domain that hosts die of. And the commands that tell what is and what would be."""

import json
import time

import pytest

from conftest import make_lab
from failover import Watch, at_home, look, make_cluster, move, power, quorate_host, whole_again
from labkit.cluster import STORE, wait_until

HOMES = {"web1": "hostA", "web2": "hostB", "web3": "hostC"}
CONSTRAINT = 113
DEFAULTS = ["--priority", "100", "--order", "0", "--delay", "0", "--ready", "running", "--gives-way", "no", "--hung", "0"]
PROOF_BY_TIME_S = 45      # lib/deadlines.h


@pytest.fixture(scope="module")
def cluster():
    with make_lab("failover-policy") as lab:
        yield make_cluster(lab, HOMES)


@pytest.fixture(autouse=True)
def homes(cluster):
    ctl(cluster, "ha", "arm")
    for guest in HOMES:
        ctl(cluster, "ha", "set", guest, *DEFAULTS)
    whole_again(cluster)
    at_home(cluster, HOMES)


def ctl(cluster, *arguments, **more):
    return cluster.ctl(*arguments, host=quorate_host(cluster), **more)


def json_of(cluster, *arguments):
    return cluster.json(*arguments, host=quorate_host(cluster))


def kinds(cluster, watch, subject):
    """What happened to one thing since the watch began, in order."""
    events = cluster.events(host=quorate_host(cluster))
    return [event["kind"] for event in events if event["subject"] == subject and int(event["id"]) > watch.event]


def begin(cluster):
    watch = Watch(cluster)
    watch.event = max(int(event["id"]) for event in cluster.events(host=quorate_host(cluster)))
    return watch


def settings(cluster, host, **values):
    """host.yaml with these lines set; returns what it was."""
    path = cluster.lab.host_path(host, "/etc/gantry/host.yaml")
    before = path.read_text()
    lines = [line for line in before.splitlines() if line.split(":")[0] not in values]
    path.write_text("\n".join(lines + [f"{key}: {value}" for key, value in values.items()]) + "\n")
    cluster.lab.service(host, "restart", "gantry-agent")
    return before


def test_whatif_and_verify_tell_what_would_be(cluster):
    plan = json_of(cluster, "whatif", "fail", "hostC")
    assert [(move["domain"], move["from"]) for move in plan["moves"]] == [("web3", "hostC")] and plan["moves"][0]["to"] in ("hostA", "hostB")
    assert plan["quorate"]
    two = ctl(cluster, "whatif", "fail", "hostB", "hostC", check=False)
    assert "no quorum" in two.stdout, two.stdout
    assert ctl(cluster, "cluster", "verify", check=False).returncode == 0
    ctl(cluster, "ha", "disarm", "--for", "10m", "--reason", "a test")
    found = ctl(cluster, "cluster", "verify", check=False)
    assert found.returncode == 1 and "disarm" in found.stdout, found.stdout
    status = ctl(cluster, "ha", "status").stdout
    assert "a test" in status and "web1" in status, status


def test_each_fence_device_is_tried(cluster):
    done = ctl(cluster, "fence", "test", "hostC")
    assert "fence_lab" in done.stdout and "on" in done.stdout, done.stdout
    refused = cluster.ctl("fence", "test", "hostC", "--really", "--yes", host="hostA", check=False)
    assert refused.returncode == CONSTRAINT and "web3" in refused.stderr, refused.stderr
    cluster.lab.power("fail on")
    failed = ctl(cluster, "fence", "test", "hostC", check=False)
    assert failed.returncode == 1, failed.stdout


def test_what_comes_later_waits_for_what_is_ready(cluster):
    """web2 and web3 lose their host; web3 (order 2) is placed only when web2's guest agent has answered."""
    ctl(cluster, "migrate", "web2", "hostC")
    ctl(cluster, "ha", "set", "web2", "--order", "1", "--ready", "agent", "--delay", "1")
    ctl(cluster, "ha", "set", "web3", "--order", "2")
    watch = begin(cluster)
    cluster.lab.kill("hostC")
    watch.check(started={"web2": 1, "web3": 1}, not_on=["hostC"])
    events = [(event["subject"], event["kind"]) for event in cluster.events(host="hostA") if int(event["id"]) > watch.event]
    assert events.index(("domain web2", "domain-ready")) < events.index(("domain web3", "domain-placed")), events
    assert ("domain web3", "domain-waiting") in events


def test_a_domain_gives_way_and_comes_back(cluster):
    """Room for one on what is left: the one of the higher priority has it; the other one runs again when there is room."""
    before = {host: settings(cluster, host, memory_mib=200) for host in ("hostA", "hostB")}
    wait_until("their memory is known", lambda: all(int(cluster.host(host)["memory_bytes"]) == 200 << 20 for host in before), 30)
    ctl(cluster, "ha", "set", "web1", "--priority", "10", "--gives-way", "yes")
    ctl(cluster, "ha", "set", "web3", "--priority", "200")
    watch = begin(cluster)
    try:
        said = ctl(cluster, "whatif", "fail", "hostC", "-o", "json", check=False)
        plan = json.loads(said.stdout)
        assert said.returncode == CONSTRAINT, "for scripts"
        assert {move["domain"]: move.get("to", "") for move in plan["moves"]} == {"web3": "hostA", "web1": ""}
        cluster.lab.kill("hostC")
        wait_until("web3 has web1's place", lambda: look(cluster, "web3")["host"] == "hostA" and look(cluster, "web3")["state"] == "running", 60)
        wait_until("web1 waits", lambda: look(cluster, "web1")["state"] == "waiting", 10)
        assert "domain-evicted" in kinds(cluster, watch, "domain web1")
    finally:
        for host, text in before.items():
            cluster.lab.host_path(host, "/etc/gantry/host.yaml").write_text(text)
            cluster.lab.service(host, "restart", "gantry-agent")
    watch.check(started={"web1": 1, "web3": 1})


def test_nothing_happens_while_it_is_disarmed(cluster):
    ctl(cluster, "ha", "disarm", "--for", "10m", "--reason", "a switch is replaced")
    watch = begin(cluster)
    cluster.lab.kill("hostC")
    wait_until("hostC is known to be lost", lambda: cluster.host("hostC", "hostA")["state"] == "lost", 30)
    time.sleep(4)
    assert cluster.host("hostC", "hostA")["state"] == "lost" and look(cluster, "web3", "hostA")["host"] == "hostC"
    assert "DISARMED" in cluster.ctl("cluster", "status", host="hostA").stdout
    cluster.ctl("ha", "arm", host="hostA")
    watch.check(started={"web3": 1}, not_on=["hostC"], seen_from="hostA")


def test_a_host_is_fenced_by_hand(cluster):
    refused = ctl(cluster, "fence", "run", "hostC", check=False)
    assert refused.returncode != 0 and "--yes" in refused.stderr, refused.stderr
    watch = begin(cluster)
    cluster.ctl("fence", "run", "hostC", "--yes", "--reason", "it smells", host="hostA")
    assert power(cluster, "hostC") == "off"
    watch.check(started={"web3": 1}, not_on=["hostC"], seen_from="hostA")
    assert "it smells" in cluster.ctl("fence", "history", "hostC", host="hostA").stdout


@pytest.mark.long
def test_a_host_that_lost_the_pool_loses_the_domains_that_use_it(cluster):
    watch = begin(cluster)
    for chain in ("input", "output"):
        side = "saddr" if chain == "input" else "daddr"
        cluster.lab.exec("hostC", ["nft", f"add table ip lost; add chain ip lost {chain} {{ type filter hook {chain} priority 0; }}; "
                                          f"add rule ip lost {chain} ip {side} {STORE} drop"])
    try:
        wait_until("it is said", lambda: "vms" in cluster.host("hostC").get("lost_pools", []), 60)
        print(f"hostC lost its pool: web3 runs after {watch.wait_elsewhere('web3', timeout=120):.1f} s")
    finally:
        cluster.lab.exec("hostC", ["nft", "delete table ip lost"])
    watch.check(started={"web3": 1}, not_on=["hostC"])
    assert power(cluster, "hostC") == "on" and "domain-evicted" in kinds(cluster, watch, "domain web3")
    wait_until("hostC has it again", lambda: not cluster.host("hostC").get("lost_pools"), 40)


def test_a_hung_guest_is_restarted_where_it_was(cluster):
    ctl(cluster, "ha", "set", "web2", "--hung", "15")
    watch = begin(cluster)
    cluster.console("web2", "hang-agent", "hung: the guest agent was silent for 15 s", host=quorate_host(cluster))
    watch.check(started={"web2": 1}, on={"web2": "hostB"})
    assert "domain-restarting" in kinds(cluster, watch, "domain web2")


def test_time_proves_a_host_with_a_watchdog_dead(cluster):
    """Nothing can switch hostC off, and nobody hears it: its watchdog must have reset it by then."""
    before = settings(cluster, "hostC", watchdog="/run/lab/watchdog")
    wait_until("its watchdog is known", lambda: cluster.host("hostC").get("watchdog"), 30)
    ctl(cluster, "fence", "set", "hostC", "watchdog")
    watch = begin(cluster)
    try:
        cluster.lab.cut("hostC")
        took = watch.wait_elsewhere("web3", timeout=PROOF_BY_TIME_S + 30, seen_from="hostA")
        print(f"proven dead by time: web3 runs after {took:.1f} s")
        assert took > PROOF_BY_TIME_S and power(cluster, "hostC") == "off"
        fired = [event for event in cluster.lab.events() if event["event"] == "watchdog-fired" and event["monotonic"] > watch.began]
        assert [event["host"] for event in fired] == ["hostC"]
        assert fired[0]["monotonic"] - watch.began < took, "it was reset before its domain ran elsewhere"
        watch.check(started={"web3": 1}, not_on=["hostC"], seen_from="hostA")
    finally:
        cluster.lab.heal()
        cluster.lab.host_path("hostC", "/etc/gantry/host.yaml").write_text(before)
        cluster.ctl("fence", "set", "hostC", "fence_lab", f"ip={STORE}", "ipport=6230", "plug=hostC", host="hostA")


def test_a_domain_that_hosts_die_of_is_quarantined(cluster):
    ctl(cluster, "shutdown", "web3")
    ctl(cluster, "start", "web3", "--host", "hostC")
    for victim in ("hostC", "hostA", "hostB"):
        cluster.wait_state("web3", "running")
        move(cluster, "web3", victim)
        cluster.lab.kill(victim)
        other = quorate_host(cluster, but=[victim])
        wait_until(f"{victim} is dead", lambda: cluster.host(victim, other)["state"] == "dead", 30)
        cluster.lab.on(victim)
        cluster.wait_online(victim)
    domain = look(cluster, "web3")
    assert domain["state"] == "failed" and domain["quarantined"], domain
    assert "quarantine" in domain["reason"] and "start web3" in domain["reason"]
    ctl(cluster, "start", "web3", "--host", "hostC")
    cluster.wait_state("web3", "running")
