"""What the agent does for HA, without a cluster: readiness, hung guests, storage errors, its own watchdog, isolation."""
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agentbox import AGENT, BOOT_SECTOR, BUILD, ROOT, Box, Pair, Poke, goal, spec, uuid_of, wait_until  # noqa: E402

KERNEL, INITRD = f"{BUILD}/tests/lab/guest.vmlinuz", f"{BUILD}/tests/lab/guest.initrd"
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(AGENT) or not os.path.exists(KERNEL),
                                reason="needs root, a built agent and the lab guest")


def poke_of(box, **kw):
    p = Poke(box, **kw)
    wait_until("the host's report", lambda: p.report().get("host", {}).get("accel"), 20)
    return p


@pytest.fixture
def box():
    with Box("hostA") as b:
        b.start_agent()
        yield b


@pytest.fixture
def poke(box):
    return poke_of(box)


def bios(box, n=1):
    box.write(f"/run/boot{n}.img", BOOT_SECTOR.ljust(1 << 20, b"\0"))
    return spec(n, disks=[{"vdev": "xvda", "path": f"/run/boot{n}.img", "format": "raw"}])


def linux(n, options="", **more):
    return spec(n, kernel=KERNEL, ramdisk=INITRD, memory_bytes=128 << 20,
                cmdline=f"console=ttyS0 quiet gw.ip=10.80.0.{n} gw.mb=2 {options}", **more)


def console_of(box, n, word="READY"):
    c = Poke(box, "test")
    c.send({"console_open": {"domain": f"dom{n}", "history_bytes": 65536}})
    wait_until(word, lambda: word in c.console, 40)
    return c


def test_ready_by_policy_and_hung_guests(box, poke):
    nics = [{"mac": "00:16:3e:00:00:02", "model": "virtio"}]
    # The bridge is made with the first guest on it; the host gets an address there afterwards.
    policies = {1: {"ready_by": "agent"}, 2: {"ready_by": "port", "ready_address": "10.80.0.2", "ready_port": 2222},
                3: {"ready_by": "time", "ready_s": 3}, 4: {}}
    guests = {1: linux(1), 2: linux(2, "gw.listen=2222", nics=nics), 3: bios(box, 3), 4: bios(box, 4)}

    def push():
        poke.push(domains=[goal(guests[n], policy=policies[n]) for n in guests])

    push()
    running = {n: poke.wait_domain(uuid_of(n), "running") for n in guests}
    since = time.monotonic()
    box.run("ip", "address", "add", "10.80.0.254/24", "dev", "gbr0")
    assert poke.domain(uuid_of(4))["ready"]
    assert not any(poke.domain(uuid_of(n))["ready"] for n in (1, 2, 3))
    assert "guest agent has not answered" in poke.domain(uuid_of(1))["reason"]
    wait_until("the reason", lambda: "not ready: port 2222 at 10.80.0.2: " in poke.domain(uuid_of(2))["reason"], 5)
    wait_until("ready by time", lambda: poke.domain(uuid_of(3))["ready"], 10)
    assert 2.5 < time.monotonic() - since < 6
    for n in (1, 2):
        wait_until(f"dom{n} ready", lambda n=n: poke.domain(uuid_of(n))["ready"], 40)
        assert poke.domain(uuid_of(n))["reason"] == ""
    assert int(poke.domain(uuid_of(1))["pid"]) == int(running[1]["pid"])
    # Silence counts once the policy says so; an answering guest goes on.
    policies[1]["hung_s"] = 3
    push()
    watched = console_of(box, 2)
    watched.send("line watchdog-start")
    wait_until("the watchdog", lambda: "WATCHDOG started" in watched.console, 10)
    silent = console_of(box, 1)
    time.sleep(4)
    assert poke.domain(uuid_of(1))["state"] == poke.domain(uuid_of(2))["state"] == "running"
    silent.send("line hang-agent")
    watched.send("line watchdog-stop-feeding")
    d = poke.wait_domain(uuid_of(1), "crashed", timeout=15)
    assert d["hung"] and d["reason"] == "hung: the guest agent was silent for 3 s"
    d = poke.wait_domain(uuid_of(2), "crashed")
    assert d["hung"] and d["reason"] == "hung: its watchdog fired"
    # It is on record, also for the next agent.
    box.kill_agent()
    box.start_agent()
    again = Poke(box)
    wait_until("a report", lambda: again.report().get("host"))
    leftovers = lambda: int(again.report()["host"].get("leftovers", 0))  # noqa: E731
    assert leftovers() == 0
    again.goals.update(index=50, domains=[g for g in poke.goals["domains"] if g["spec"]["name"] != "dom4"])
    again.push()
    assert again.wait_domain(uuid_of(1), "crashed")["hung"]
    wait_until("no leftovers", lambda: leftovers() == 0)
    assert any(int(r["host"].get("leftovers", 0)) == 1 for _, r in again.reports), "dom4's QEMU, until it had ended"
    wait_until("found ready again", lambda: again.domain(uuid_of(3))["ready"], 10)
    assert len(box.qemus()) == 1


def test_a_migrated_guest_is_ready_at_once_and_watched_on():
    s, policy = linux(1), {"policy": {"ready_by": "agent", "hung_s": 3}}
    with Pair() as pair:
        a, b = pair.pokes["hostA"], pair.pokes["hostB"]
        a.push(domains=[goal(s, 1, **policy)])
        wait_until("ready", lambda: a.domain(uuid_of(1)).get("ready"), 40)
        pair.begin(s, pair.a, 7, 2)
        b.wait_migration(7, lambda m: m["ready_to_commit"] or m["failed"], "ready")
        b.push(domains=[goal(s, 2, lease_from="hostA", lease_from_generation=1, lease_proof="migrated by task 7", **policy)],
               migrations=[pair.migration(s, pair.a, 7, 2, True, committed=True)])
        a.push(domains=[], migrations=[pair.migration(s, pair.a, 7, 2, False, committed=True)])
        b.wait_domain(uuid_of(1), "running", 2, timeout=20)
        # Before its guest agent has spoken here.
        wait_until("ready", lambda: b.domain(uuid_of(1))["ready"], 2)
        pair.end()
        wait_until("the guest agent's voice", lambda: "its guest agent answers" in pair.b.log(), 10)
        time.sleep(4)
        assert b.domain(uuid_of(1))["state"] == "running"
        console = Poke(pair.b, "test")
        console.send({"console_open": {"domain": "dom1"}})
        console.send("line hang-agent")
        assert b.wait_domain(uuid_of(1), "crashed", 2, timeout=15)["hung"]


def test_a_full_disk_pauses_the_guest_until_there_is_room(box, poke):
    box.run("mkdir", "/run/small")
    box.run("mount", "-t", "tmpfs", "-o", "size=4m", "none", "/run/small")
    poke.push(pools=[{"name": "small", "type": "dir", "target": "/run/small", "shared": True}])
    with open(box.path("/run/small/v1.raw"), "wb") as f:
        f.truncate(16 << 20)
    s = linux(1, "gw.disk_ms=5", disks=[{"vdev": "xvda", "pool": "small", "volume": "v1", "format": "raw"}])
    poke.push(domains=[goal(s)])
    d = poke.wait_domain(uuid_of(1), "running")
    console_of(box, 1, "DISK ok").close()
    box.run("dd", "if=/dev/zero", "of=/run/small/filler", "bs=4096", check=False, stderr=subprocess.DEVNULL)
    paused = poke.wait_domain(uuid_of(1), "paused", timeout=20)
    assert "volume small/v1 (xvda)" in paused["reason"] and "No space left" in paused["reason"], paused
    seen = len(poke.reports)
    wait_until("a try", lambda: box.log().count("unpause") >= 2, 12)
    time.sleep(0.5)
    assert all(r["domains"][0]["state"] == "paused" for _, r in poke.reports[seen:]), "a try that fails is no running"
    box.run("rm", "/run/small/filler")
    again = poke.wait_domain(uuid_of(1), "running", timeout=15)
    assert again["pid"] == d["pid"] and again["reason"] == ""
    time.sleep(1)
    poke.push(domains=[])
    wait_until("no QEMU", lambda: not box.qemus(), 5)
    checked = subprocess.run([f"{ROOT}/tests/lab/guest/disklog", box.path("/run/small/v1.raw")], capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.startswith("ok "), checked.stdout + checked.stderr


class Fed:
    """Stands for a watchdog: counts what is written to it."""

    def __init__(self, box, path="/run/wd"):
        box.run("mkfifo", path)
        self.times, self.last = [], b""
        self.fd = os.open(box.path(path), os.O_RDWR)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            got = os.read(self.fd, 100)
            self.times += [time.monotonic()] * len(got)
            self.last = got[-1:]


def test_the_watchdog_is_fed_with_a_quorum_only(box):
    """And beside it, for the same 20 s: a host without one leaves a domain whose policy says so."""
    with Box("hostB") as guarded:
        guarded.configure(watchdog="/run/wd", watchdog_timeout_s=5)
        fed = Fed(guarded)
        guarded.start_agent()
        time.sleep(2)
        assert not fed.times, "a host that boots without a quorum must not reset itself"
        plain, poke = poke_of(box), poke_of(guarded)
        wait_until("food", lambda: len(fed.times) >= 3, 6)
        assert poke.report()["host"]["watchdog"] == "/run/wd" and not plain.report()["host"].get("watchdog")
        leave = {"policy": {"isolation": "leave"}}
        for p, b in ((plain, box), (poke, guarded)):
            p.push(domains=[goal(bios(b, 1), **leave), goal(bios(b, 2))])
            p.wait_domain(uuid_of(1), "running")
            p.wait_domain(uuid_of(2), "running")
        # HA domains are here: the next agent must take the watchdog up again at once, with no quorum yet.
        assert guarded.kill_agent(signal.SIGTERM) == 0
        assert fed.last == b"f", "it was disarmed although HA domains are here"
        guarded.start_agent()
        wait_until("food", lambda: time.monotonic() - fed.times[-1] < 0.5, 3)
        plain.send("quorum off")
        poke.close()
        since = time.monotonic()
        wait_until("the self-fence of both", lambda: not guarded.qemus() and len(box.qemus()) == 1, 24)
        assert 18 < time.monotonic() - since < 22, "with a watchdog the countdown goes on without a clusterd"
        plain.wait_domain(uuid_of(1), "running")
        assert "self-fence" in plain.wait_domain(uuid_of(2), "crashed")["reason"]
        time.sleep(3)
        assert time.monotonic() - fed.times[-1] > 2.5, "a host that is fenced was fed"
        # The same for an agent that starts while its host is fenced.
        guarded.kill_agent()
        box.kill_agent()
        n = len(fed.times)
        guarded.start_agent()
        box.start_agent()
        plain = Poke(box, quorum="off")
        wait_until("the self-fence", lambda: plain.report().get("self_fenced"), 5)
        time.sleep(1)
        assert len(fed.times) == n and len(box.qemus()) == 1, "the note says what is to be left"
        # Automatic action is off: no quorum is no reason to reset anything.
        off = Poke(guarded, quorum="off")
        off.push(disarmed=True)
        wait_until("food while disarmed", lambda: len(fed.times) > n, 3)
        assert off.report()["self_fenced"]
        off.push(disarmed=False)
        time.sleep(1.5)
        assert time.monotonic() - fed.times[-1] > 1, "it was armed again"
        n = len(fed.times)
        again = Poke(guarded)
        wait_until("food", lambda: len(fed.times) > n, 3)
        assert not again.report().get("self_fenced")
        assert guarded.kill_agent(signal.SIGTERM) == 0
        wait_until("the magic close", lambda: fed.last == b"V", 2)


def test_a_watchdog_that_cannot_be_had_is_named(box):
    box.kill_agent()
    box.configure(watchdog="/run/plain-file")
    box.write("/run/plain-file", "")
    box.start_agent()
    poke = poke_of(box)
    wait_until("the complaint", lambda: "/run/plain-file is neither a device nor a FIFO" in box.log(), 5)
    assert not poke.report()["host"].get("watchdog")
    box.kill_agent()
    box.configure(watchdog="softdog")
    with pytest.raises(AssertionError, match="absolute path"):
        box.start_agent()
