"""Bad luck: the store goes, a disk is full, QEMU does not start, a host has no room. Each with a clear error, nothing lost."""

import time

import pytest

from conftest import make_lab
from labkit.cluster import POOL, Cluster, wait_until

CONSTRAINT = 113


@pytest.fixture(scope="module")
def guest(cluster):
    cluster.add_guest("web1", host="hostB")
    return "web1"


@pytest.fixture(autouse=True)
def store_is_back(cluster):
    yield
    if cluster.lab.status()["store"] != "on":
        cluster.lab.store("start")


def config_of(cluster, name, host="hostA", **extra):
    path = f"/run/{name}.cfg"
    lines = "".join(f"{key} = {value}\n" for key, value in extra.items())
    cluster.put_file(host, path, cluster.guest_config(name, "10.80.0.90", disk=False) + lines)
    return path


def test_store_away_during_a_run_only_delays(cluster, guest):
    address, began = cluster.guests[guest], time.monotonic()
    before = cluster.lab.observer.last_tick(address)
    cluster.lab.store("kill")
    time.sleep(5)
    cluster.lab.store("start")
    def writes_again():
        tick = cluster.lab.observer.last_tick(address)
        return tick.boot == before.boot and tick.disk_records > before.disk_records + 20
    wait_until("the guest writes again", writes_again, 90)
    assert not cluster.lab.observer.faults(address, since=began)
    assert cluster.domain(guest)["state"] == "running"


def test_store_away_at_create_names_the_pool(cluster, guest):
    cluster.lab.store("kill")
    done = cluster.ctl("vol", "create", f"{POOL}/late", "8M", check=False, timeout=120)
    assert done.returncode != 0 and POOL in done.stderr, done.stderr
    assert not [v for v in cluster.json("vol", "list") if v["name"] == "late"]
    cluster.lab.store("start")
    wait_until("a volume can be made again", lambda: cluster.ctl("vol", "create", f"{POOL}/late", "8M", check=False,
                                                               timeout=120).returncode == 0, 60)
    cluster.ctl("vol", "delete", f"{POOL}/late")


def test_qemu_that_dies_at_start_is_quoted(cluster):
    path = config_of(cluster, "odd", gantry_machine='"pc-q35-99.9"')
    done = cluster.ctl("create", path, "--host", "hostA", host="hostA", check=False)
    assert done.returncode != 0 and "unsupported machine type" in done.stderr and "qemu" in done.stderr.lower(), done.stderr
    cluster.ctl("undefine", "odd")


def test_destination_without_room_is_refused(cluster, guest):
    target = next(host for host in cluster.lab.hosts if host != cluster.domain(guest)["host"])
    conf = cluster.lab.host_path(target, "/etc/gantry/host.yaml")
    text = conf.read_text()
    conf.write_text("\n".join(line for line in text.splitlines() if not line.startswith("memory_mib")) + "\nmemory_mib: 64\n")
    try:
        cluster.lab.service(target, "restart", "gantry-agent")
        wait_until("its memory is known", lambda: int(cluster.host(target)["memory_bytes"]) == 64 << 20, 30)
        done = cluster.ctl("migrate", guest, target, check=False)
        assert done.returncode == CONSTRAINT and target in done.stderr and "MiB" in done.stderr, (done.returncode, done.stderr)
    finally:
        conf.write_text(text)
        cluster.lab.service(target, "restart", "gantry-agent")
        wait_until("its memory is known", lambda: int(cluster.host(target)["memory_bytes"]) > 64 << 20, 30)


def test_destination_that_is_down_is_refused(cluster, guest):
    target = next(host for host in reversed(cluster.lab.hosts) if host != cluster.domain(guest)["host"])
    cluster.lab.kill(target)
    try:
        wait_until("it is known to be dead", lambda: cluster.host(target)["state"] == "dead", 30)
        done = cluster.ctl("migrate", guest, target, check=False)
        assert done.returncode == CONSTRAINT and target in done.stderr and "dead" in done.stderr, (done.returncode, done.stderr)
    finally:
        cluster.lab.on(target)
        cluster.wait_quorate()
        cluster.wait_online(target, timeout=60)


def test_volume_that_only_one_host_has_keeps_its_domain_there(cluster):
    cluster.lab.exec("hostA", ["mkdir", "-p", "/var/lib/gantry/local"])
    cluster.ctl("pool", "add", "local", "dir:/var/lib/gantry/local", host="hostA")
    cluster.ctl("vol", "create", "local/own", "8M", host="hostA")
    path = config_of(cluster, "stay", disk="['local/own,qcow2,xvda,rw']")
    cluster.ctl("create", path, host="hostA")
    assert cluster.domain("stay")["host"] == "hostA"
    done = cluster.ctl("migrate", "stay", "hostB", check=False)
    assert done.returncode == CONSTRAINT and "local/own" in done.stderr and "hostA" in done.stderr, (done.returncode, done.stderr)
    cluster.ctl("destroy", "stay")
    cluster.ctl("undefine", "stay")
    cluster.ctl("vol", "delete", "local/own")
    cluster.ctl("pool", "delete", "local")


def test_full_disk_under_the_log_stops_only_that_host(cluster, guest):
    victim = next(host for host in reversed(cluster.lab.hosts) if host != cluster.domain(guest)["host"])
    other = next(host for host in cluster.lab.hosts if host != victim)
    run = lambda *argv: cluster.lab.exec(victim, list(argv))  # noqa: E731
    cluster.lab.service(victim, "stop", "clusterd")
    run("mkdir", "/run/copy")
    run("cp", "-a", "/var/lib/gantry/.", "/run/copy")
    run("mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", "/var/lib/gantry")
    run("cp", "-a", "/run/copy/.", "/var/lib/gantry")
    cluster.lab.service(victim, "start", "clusterd")
    wait_until("it is in step", lambda: cluster.is_quorate(victim), 30)
    cluster.lab.exec(victim, ["dd", "if=/dev/zero", "of=/var/lib/gantry/fill", "bs=64k"], check=False)
    try:
        def says_so():
            cluster.ctl("pause", guest, host=other)
            cluster.ctl("unpause", guest, host=other)
            done = cluster.ctl("cluster", "status", host=victim, check=False)
            return "disk" in done.stdout + done.stderr or "full" in done.stdout + done.stderr
        wait_until("the victim says that its disk failed, while the others go on", says_so, 60)
        assert cluster.domain(guest, seen_from=other)["state"] == "running"
    finally:
        # Its memory file systems go with the power: the disk that it had is back.
        cluster.lab.kill(victim)
        cluster.lab.on(victim)
        cluster.wait_quorate()
        cluster.wait_online(victim, timeout=90)


def test_cluster_of_one_host():
    with make_lab("one", hosts=1) as lab:
        cluster = Cluster(lab)
        cluster.create_all(fence=False)
        cluster.add_guest("solo", volume_mib=16)
        assert cluster.domain("solo")["state"] == "running"
        cluster.lab.service("hostA", "kill", "clusterd")
        cluster.lab.service("hostA", "kill", "gantry-agent")
        cluster.wait_quorate()
        cluster.wait_online("hostA")
        assert cluster.lab.observer.wait_tick(cluster.guests["solo"], timeout=10)
        cluster.ctl("shutdown", "solo", timeout=90)
        assert cluster.domain("solo")["state"] == "stopped"
