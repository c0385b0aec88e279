"""Who dies when during a live migration: in each stage, either side. One verdict each time: one running copy, memory and
disk whole, the task ended with a reason, and the next migration works."""

import json
import subprocess
import time

import pytest

from labkit.cluster import wait_until

FAULT = "/run/gantry/fault"
CONTINUE = "/run/gantry/fault-continue"
STAGES = ["pre-migration", "reservation", "pre-copy", "stop-and-copy", "verification", "commitment"]


@pytest.fixture(scope="module")
def guest(cluster):
    cluster.add_guest("mover", host="hostA", memory=160, mb=32)
    return "mover"


@pytest.fixture(autouse=True)
def whole_again(cluster):
    """Every test finds three hosts that are up and no fault armed, whatever the one before it left."""
    yield
    for host in cluster.lab.status()["hosts"]:
        if host["power"] == "on":
            cluster.put_file(host["name"], CONTINUE, "")
        else:
            cluster.lab.on(host["name"])
    time.sleep(0.2)
    for host in cluster.lab.hosts:
        cluster.lab.exec(host, ["rm", "-f", FAULT, CONTINUE], check=False)
    cluster.wait_quorate()
    for host in cluster.lab.hosts:
        cluster.wait_online(host, timeout=60)


def last_job(cluster, guest):
    jobs = [job for job in cluster.json("task", "list") if job["kind"] == "migrate" and job["domain_name"] == guest]
    return jobs[-1]


def settled(cluster, guest):
    """The task has ended and the domain runs, as everyone knows it."""
    def there():
        domain = cluster.domain(guest)
        return domain if last_job(cluster, guest)["state"] != "running" and domain["state"] == "running" else None
    return wait_until("the migration is over and the domain runs", there, 90)


def copies(cluster, guest):
    """Hosts with a QEMU of the guest whose vCPUs run or may run."""
    found = []
    for host in cluster.lab.status()["hosts"]:
        if host["power"] == "on":
            done = cluster.lab.exec(host["name"], ["pgrep", "-f", f"guest={guest},"], check=False)
            found += [host["name"]] * bool(done.stdout.strip())
    return found


def verdict(cluster, guest, began):
    domain = settled(cluster, guest)
    address = cluster.guests[guest]
    wait_until(f"one copy, on {domain['host']}", lambda: copies(cluster, guest) == [domain["host"]], 30)
    assert cluster.lab.observer.wait_tick(address, since=time.monotonic(), timeout=20), "the guest is silent"
    boots = {tick.boot for tick in cluster.lab.observer.ticks(address, since=began)}
    assert len(boots) == 1, f"the guest booted again: {boots}"
    assert not cluster.lab.observer.faults(address, since=began)
    return domain


def arm(cluster, host, point, action):
    cluster.put_file(host, FAULT, f"{point}={action}\n")


def start_migration(cluster, guest, destination):
    done = cluster.ctl("migrate", guest, destination, "--no-wait", "-o", "json")
    return json.loads(done.stdout)


def was_hit(cluster, host):
    return cluster.lab.exec(host, ["test", "-e", FAULT], check=False).returncode != 0


def agent_age(cluster, host):
    """Seconds since the agent's process was started, 0 while there is none."""
    service = cluster.lab.services(host)["gantry-agent"]
    if not service["pid"]:
        return 0
    done = cluster.lab.exec(host, ["ps", "-o", "etimes=", "-p", str(service["pid"])], check=False)
    return float(done.stdout.strip() or 0)


def other_than(cluster, *hosts):
    return next(host for host in cluster.lab.hosts if host not in hosts)


@pytest.mark.parametrize("stage", [*STAGES[:3], "hand-over", *STAGES[3:]])
def test_source_agent_dies_and_is_started_again(cluster, guest, stage):
    source = cluster.domain(guest)["host"]
    destination = other_than(cluster, source)
    began = time.monotonic()
    arm(cluster, source, f"migrate.source.{stage}", "exit")
    start_migration(cluster, guest, destination)
    wait_until("the agent died at its point", lambda: was_hit(cluster, source), 60)
    wait_until("it is started again", lambda: agent_age(cluster, source) > 0.5, 20)
    domain = verdict(cluster, guest, began)
    job = last_job(cluster, guest)
    if job["state"] == "done":
        assert domain["host"] == destination and stage in ("verification", "commitment")
    else:
        assert domain["host"] == source and job["reason"], job


@pytest.mark.parametrize("stage", STAGES)
def test_destination_loses_power(cluster, guest, stage):
    source = cluster.domain(guest)["host"]
    destination = other_than(cluster, source)
    began = time.monotonic()
    arm(cluster, destination, f"migrate.destination.{stage}", "pause")
    start_migration(cluster, guest, destination)
    wait_until("the destination stands still at its point", lambda: was_hit(cluster, destination), 60)
    cluster.lab.kill(destination)
    domain = verdict(cluster, guest, began)
    assert domain["host"] == source
    job = last_job(cluster, guest)
    assert job["state"] == "failed" and destination in job["reason"], job


def test_destination_loses_power_after_commit(cluster, guest):
    """COMMIT has made it the owner: the domain is lost with it, and restarted like any other."""
    source = cluster.domain(guest)["host"]
    destination = other_than(cluster, source)
    starts = cluster.domain(guest)["starts"]
    arm(cluster, destination, "migrate.destination.activation", "pause")
    start_migration(cluster, guest, destination)
    wait_until("COMMIT is applied", lambda: was_hit(cluster, destination), 60)
    assert cluster.domain(guest, seen_from=source)["host"] == destination
    killed = time.monotonic()
    cluster.lab.kill(destination)
    domain = settled(cluster, guest)
    assert domain["host"] != destination and domain["starts"] == starts + 1
    assert cluster.lab.observer.wait_tick(cluster.guests[guest], since=killed, timeout=60)
    wait_until("one copy", lambda: copies(cluster, guest) == [domain["host"]], 30)
    assert "VERIFY ok" in cluster.console(guest, "verify", "VERIFY", timeout=60)


def test_second_migration_of_a_moving_domain_is_refused(cluster, guest):
    source = cluster.domain(guest)["host"]
    destination = other_than(cluster, source)
    third = other_than(cluster, source, destination)
    arm(cluster, source, "migrate.source.pre-copy", "pause")
    start_migration(cluster, guest, destination)
    wait_until("it is under way", lambda: was_hit(cluster, source), 60)
    done = cluster.ctl("migrate", guest, third, "--timeout", "2", check=False)
    assert done.returncode == 75 and destination in done.stderr, (done.returncode, done.stderr)
    cluster.put_file(source, CONTINUE, "")
    settled(cluster, guest)


def test_cancelled_migration_leaves_the_guest_where_it_was(cluster, guest):
    source = cluster.domain(guest)["host"]
    began = time.monotonic()
    start = cluster.start_ctl("migrate", guest, other_than(cluster, source), "--bandwidth", "8M")
    job = wait_until("it copies", lambda: (lambda j: j if j["state"] == "running" and j["stage"] == "pre_copy" else None)(
        last_job(cluster, guest)), 30)
    cluster.ctl("task", "cancel", job["id"])
    out, err = start.communicate(timeout=60)
    assert start.returncode != 0 and "cancel" in err, (out, err)
    domain = verdict(cluster, guest, began)
    assert domain["host"] == source and last_job(cluster, guest)["state"] == "cancelled"


def test_destination_without_a_certificate_of_the_cluster(cluster, guest):
    source = cluster.domain(guest)["host"]
    destination = other_than(cluster, source)
    pki = cluster.lab.host_path(destination, "/etc/gantry/pki")
    began = time.monotonic()
    (pki / "host.crt").rename(pki / "host.crt.away")
    try:
        cluster.lab.service(destination, "restart", "gantry-agent")
        time.sleep(1)
        done = cluster.ctl("migrate", guest, destination, check=False, timeout=120)
        assert done.returncode != 0 and destination in done.stderr, done.stderr
    finally:
        (pki / "host.crt.away").rename(pki / "host.crt")
    cluster.lab.service(destination, "restart", "gantry-agent")
    assert verdict(cluster, guest, began)["host"] == source
    cluster.wait_online(destination)


def test_guest_and_disk_are_whole_after_all_that(cluster, guest):
    assert "VERIFY ok" in cluster.console(guest, "verify", "VERIFY", timeout=60)
    cluster.ctl("shutdown", guest, timeout=90)
    checked = subprocess.run([cluster.lab.build.parent / "tests/lab/guest/disklog", cluster.lab.store_path(f"{guest}.raw")],
                             capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
