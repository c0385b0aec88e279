"""clusterd on three hosts: logs that are lost, a corosync that hangs, hosts that are removed and let in again.

No fence devices: what is broken here shall stay as it is until the test mends it.
"""

import re
import time

import pytest

from conftest import make_lab
from labkit.cluster import Cluster, wait_until
from labkit.layout import host_address

DB = "/var/lib/gantry/clusterd.db"


@pytest.fixture(scope="module")
def cluster():
    with make_lab("clusterd") as lab:
        cluster = Cluster(lab)
        cluster.create_all(pool=False, fence=False)
        yield cluster


def status(cluster, host):
    return cluster.json("cluster", "status", host=host)


def wait_synced(cluster, count=3, host="hostA"):
    def synced():
        now = status(cluster, host)
        return now.get("quorate") and sum(member.get("synced", False) for member in now["members"]) == count
    wait_until(f"{count} hosts are synced", synced, 30)


def pool_names(cluster, host):
    return {pool["name"] for pool in cluster.json("pool", "list", host=host)}


def spoil(cluster, host):
    path = cluster.lab.host_path(host, DB)
    path.write_bytes(b"not a database at all" * 10 + path.read_bytes()[210:])


def test_a_minority_says_so_and_keeps_what_it_knew(cluster):
    cluster.ctl("pool", "add", "before", "dir:/srv")
    cluster.lab.cut("hostC")
    wait_until("hostC is alone", lambda: not status(cluster, "hostC").get("quorate"), 15)
    began = time.monotonic()
    refused = cluster.ctl("pool", "add", "lost", "dir:/srv", host="hostC", check=False)
    assert refused.returncode == 106 and time.monotonic() - began < 2
    assert "no quorum: 1 of 3 voters is here (hostC); hostA, hostB are missing" in refused.stderr
    assert "before" in pool_names(cluster, "hostC")
    cluster.ctl("pool", "add", "meanwhile", "dir:/srv", host="hostA")
    cluster.lab.heal()
    wait_synced(cluster)
    assert pool_names(cluster, "hostC") >= {"before", "meanwhile"}
    assert "lost" not in pool_names(cluster, "hostA")


def test_a_corrupt_log_comes_back_from_the_others(cluster):
    cluster.ctl("pool", "add", "kept", "dir:/srv")
    cluster.lab.service("hostC", "stop", "clusterd")
    spoil(cluster, "hostC")
    cluster.lab.service("hostC", "start", "clusterd")
    wait_synced(cluster)
    assert "kept" in pool_names(cluster, "hostC")
    folder = cluster.lab.host_path("hostC", DB).parent
    assert list(folder.glob("clusterd.db.corrupt-*")), "the corrupt file is kept"


def test_a_lost_log_does_not_count_for_the_quorum(cluster):
    """hostB alone has what hostB and hostC acknowledged. hostC loses it, hostB is off: hostA and hostC must wait."""
    cluster.lab.cut("hostA")
    wait_until("hostA is alone", lambda: not status(cluster, "hostA").get("quorate"), 15)
    wait_synced(cluster, 2, "hostB")
    cluster.ctl("pool", "add", "precious", "dir:/srv", host="hostB")
    cluster.lab.service("hostC", "stop", "clusterd")
    spoil(cluster, "hostC")
    cluster.lab.kill("hostB")
    cluster.lab.heal()
    cluster.lab.service("hostC", "start", "clusterd")
    time.sleep(6)
    assert not status(cluster, "hostA").get("quorate") and not status(cluster, "hostC").get("quorate")
    cluster.lab.on("hostB")
    wait_synced(cluster)
    assert "precious" in pool_names(cluster, "hostA") and "precious" in pool_names(cluster, "hostC")


def test_a_corosync_that_hangs_is_noticed_and_stops_nobody(cluster):
    cluster.lab.service("hostC", "pause", "corosync")
    try:
        cluster.ctl("pool", "add", "others", "dir:/srv", host="hostA")
        wait_until("hostC notices", lambda: "hangs" in status(cluster, "hostC").get("log_state", ""), 60)
        began = time.monotonic()
        cluster.lab.service("hostC", "stop", "clusterd")
        assert time.monotonic() - began < 8
    finally:
        cluster.lab.service("hostC", "cont", "corosync")
    cluster.lab.service("hostC", "start", "clusterd")
    wait_synced(cluster)
    assert "others" in pool_names(cluster, "hostC")


def test_all_hosts_lose_their_power_at_once(cluster):
    known = pool_names(cluster, "hostA")
    index = int(status(cluster, "hostA")["commit_index"])
    for host in cluster.lab.hosts:
        cluster.lab.kill(host)
    for host in cluster.lab.hosts:
        cluster.lab.on(host)
    wait_until("clusterd answers", lambda: cluster.ctl("cluster", "status", host="hostA", check=False).returncode == 0, 30)
    wait_synced(cluster)
    assert pool_names(cluster, "hostB") == known
    assert int(status(cluster, "hostA")["commit_index"]) >= index


def test_a_token_lets_one_host_in(cluster):
    token = cluster.ctl("cluster", "token", host="hostA").stdout.split()[-1]
    assert re.fullmatch(r"[0-9a-f]{64}\.[0-9a-f]{32}", token)
    elsewhere = cluster.ctl("cluster", "token", host="hostB", check=False)
    assert elsewhere.returncode != 0 and "where the cluster was made" in elsewhere.stderr


def test_a_removed_host_steps_out_and_can_come_back(cluster):
    cluster.ctl("host", "remove", "hostC", host="hostA")
    wait_until("hostC knows", lambda: "not in cluster" in status(cluster, "hostC").get("log_state", ""), 20)
    wait_synced(cluster, 2)
    for host in ("hostA", "hostB"):
        conf = cluster.lab.host_path(host, "/etc/corosync/corosync.conf").read_text()
        assert host_address("hostC") not in conf
    refused = cluster.ctl("cluster", "status", host="hostC", check=False)
    assert refused.returncode == 0, "it still answers questions"
    token = cluster.ctl("cluster", "token", host="hostA").stdout.split()[-1]
    for service in ("clusterd", "corosync"):
        cluster.lab.service("hostC", "stop", service)
    for path in cluster.lab.host_path("hostC", DB).parent.glob("clusterd.db*"):
        path.unlink()
    cluster.lab.service("hostC", "start", "corosync")
    cluster.lab.service("hostC", "start", "clusterd")
    joined = cluster.ctl("cluster", "join", host_address("hostA"), "--token", token, "--address", host_address("hostC"),
                         "--host-name", "hostC", "--force", host="hostC", check=False)
    assert joined.returncode == 0, joined.stderr
    wait_synced(cluster)
    assert "precious" in pool_names(cluster, "hostC")
    assert host_address("hostC") in cluster.lab.host_path("hostB", "/etc/corosync/corosync.conf").read_text()
