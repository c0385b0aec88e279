"""Migrations between two agents without a cluster: the test is the log that decides. Run as root with a built tree."""
import os
import re
import signal
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agentbox import AGENT, BOOT_SECTOR, BUILD, Pair, Poke, goal, spec, uuid_of, wait_until  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(AGENT), reason="needs root and a built agent")
DOM = uuid_of(1)
JOB = 7
LINUX = (f"{BUILD}/tests/lab/guest.vmlinuz", f"{BUILD}/tests/lab/guest.initrd")


@pytest.fixture
def pair():
    with Pair() as p:
        yield p


@pytest.fixture
def dom(pair):
    """A domain of generation 1 that runs on hostA, with a volume in the shared pool."""
    s = spec(1, disks=[pair.volume("v1", BOOT_SECTOR)])
    pair.run(s, pair.a, 1)
    return s


def a_(pair):
    return pair.pokes["hostA"]


def b_(pair):
    return pair.pokes["hostB"]


def ready(pair, s, source=None, job=JOB, generation=2):
    source = source or pair.a
    pair.begin(s, source, job, generation)
    poke = pair.pokes[pair.other(source).name]
    poke.wait_migration(job, lambda m: m["ready_to_commit"] or m["failed"], "ready")
    assert not poke.migration(job)["failed"], poke.migration(job)["reason"] + pair.a.log()[-2000:]


def runs_only_on(pair, box, generation, s=None):
    s = s or {"uuid": DOM, "name": "dom1"}
    pair.pokes[box.name].wait_domain(s["uuid"], "running", generation)
    wait_until("one QEMU", lambda: len(box.qemus()) == 1 and not pair.other(box).qemus())
    wait_until("a clean folder", lambda: not os.listdir(pair.other(box).path("/run/gantry/domains")))
    console = Poke(box, "test")
    console.send({"console_open": {"domain": s["name"], "read_only": True}})
    wait_until("signs of life", lambda: len(console.console) > 2, 15)


def test_commit_moves_the_guest_and_back(pair, dom):
    ready(pair, dom)
    assert len(pair.a.qemus()) == 1 and len(pair.b.qemus()) == 1
    committed = pair.commit(dom, pair.a, JOB, 2)
    b_(pair).wait_migration(JOB, lambda m: m["running"], "running")
    ms = b_(pair).first(lambda r: any(m["running"] for m in r.get("migrations", [])), committed) - committed
    figures = b_(pair).migration(JOB)["figures"]
    print(f"commit to running: {ms:.0f} ms; {figures}")
    runs_only_on(pair, pair.b, 2)
    pair.end()
    ready(pair, dom, pair.b, JOB + 1, 3)
    pair.commit(dom, pair.b, JOB + 1, 3)
    runs_only_on(pair, pair.a, 3)
    assert ms < 300


@pytest.mark.skipif(not os.path.exists(LINUX[0]), reason="needs the lab's guest")
def test_a_linux_guest_keeps_its_memory_and_disk(pair):
    s = spec(1, kernel=LINUX[0], ramdisk=LINUX[1], memory_bytes=192 << 20, disks=[pair.volume("v1", size=16 << 20)],
             cmdline="console=ttyS0 quiet gw.mb=64 gw.rate=20 gw.disk_ms=50")
    pair.run(s, pair.a, 1)
    console = Poke(pair.a, "test")
    console.send({"console_open": {"domain": "dom1", "history_bytes": 65536}})
    wait_until("the guest", lambda: "READY" in console.console, 60)
    ready(pair, s)
    pair.commit(s, pair.a, JOB, 2)
    b_(pair).wait_domain(DOM, "running", 2)
    b_(pair).wait_migration(JOB, lambda m: m["running"], "running")
    wait_until("the end of the old console", lambda: "[closed: " in console.console)
    console = Poke(pair.b, "test")
    console.send({"console_open": {"domain": "dom1"}})
    console.send("line verify")
    wait_until("the guest's verdict", lambda: re.search(r"VERIFY (ok|BAD)", console.console), 30)
    assert "VERIFY ok" in console.console
    pair.end()
    g = b_(pair).goals["domains"]
    g[0].update(goal="stopped", stop_how="shutdown")
    b_(pair).push()
    d = b_(pair).wait_domain(DOM, "stopped", 2, timeout=30)
    assert d["guest_shutdown"]


def test_abort_when_complete_leaves_the_guest_on_the_source(pair, dom):
    ready(pair, dom)
    pair.end()
    runs_only_on(pair, pair.a, 1)
    # The lease was taken back: what was handed to generation 2 is worth nothing any more.
    b_(pair).push(domains=[goal(dom, 2)])
    wait_until("the refusal", lambda: "hostA" in b_(pair).domain(DOM).get("reason", ""))
    assert b_(pair).domain(DOM)["state"] == "starting" and not pair.b.qemus()
    b_(pair).push(domains=[])
    # and it can be moved again
    ready(pair, dom, job=JOB + 1)
    pair.commit(dom, pair.a, JOB + 1, 2)
    runs_only_on(pair, pair.b, 2)


def test_abort_at_once(pair, dom):
    pair.begin(dom, pair.a, JOB, 2)
    time.sleep(0.15)
    pair.end()
    runs_only_on(pair, pair.a, 1)


def test_the_copy_dies(pair, dom):
    ready(pair, dom)
    os.kill(pair.b.qemus()[0], signal.SIGKILL)
    b_(pair).wait_migration(JOB, lambda m: m["failed"], "failed")
    pair.end()
    runs_only_on(pair, pair.a, 1)


def test_the_source_dies_when_complete(pair, dom):
    ready(pair, dom)
    os.kill(pair.a.qemus()[0], signal.SIGKILL)
    assert "signal 9" in a_(pair).wait_domain(DOM, "crashed", 1)["reason"]
    # Whichever comes first in the log holds: here the COMMIT of the complete copy.
    pair.commit(dom, pair.a, JOB, 2)
    runs_only_on(pair, pair.b, 2)


@pytest.mark.parametrize("decision", ["commit", "abort"])
def test_the_cable_is_cut_when_complete(pair, dom, decision):
    ready(pair, dom)
    pair.cable("down")
    time.sleep(0.5)
    if decision == "commit":
        pair.commit(dom, pair.a, JOB, 2)
    else:
        pair.end()
    runs_only_on(pair, pair.b if decision == "commit" else pair.a, 2 if decision == "commit" else 1)


@pytest.mark.parametrize("decision", ["commit", "abort"])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_an_agent_is_killed_when_complete(pair, dom, side, decision):
    ready(pair, dom)
    box = pair.a if side == "source" else pair.b
    box.kill_agent()
    time.sleep(0.5)
    assert len(box.qemus()) == 1
    poke = pair.start(box)
    if side == "source":
        poke.wait_migration(JOB, lambda m: m["failed"], "failed")
    else:
        poke.wait_migration(JOB, lambda m: m["ready_to_commit"] and not m["failed"], "ready again")
    assert len(pair.a.qemus()) == 1 and len(pair.b.qemus()) == 1
    if decision == "commit":
        pair.commit(dom, pair.a, JOB, 2)
    else:
        pair.end()
    runs_only_on(pair, pair.b if decision == "commit" else pair.a, 2 if decision == "commit" else 1)


def test_both_agents_are_killed_and_come_back_after_the_commit(pair, dom):
    ready(pair, dom)
    pair.a.kill_agent()
    pair.b.kill_agent()
    for box, incoming in ((pair.b, True), (pair.a, False)):
        pair.pokes[box.name].goals.update(
            domains=[{"spec": dom, "generation": 2, "goal": "running", "ha": True}] if incoming else [],
            migrations=[pair.migration(dom, pair.a, JOB, 2, incoming, committed=True)])
        pair.start(box)
    runs_only_on(pair, pair.b, 2)


def test_the_goals_of_the_source_come_first(pair, dom):
    a_(pair).push(migrations=[pair.migration(dom, pair.a, JOB, 2, False)])
    time.sleep(1)
    b_(pair).push(migrations=[pair.migration(dom, pair.a, JOB, 2, True)])
    b_(pair).wait_migration(JOB, lambda m: m["ready_to_commit"], "ready")
    pair.commit(dom, pair.a, JOB, 2)
    runs_only_on(pair, pair.b, 2)


def test_no_room_on_the_destination_is_said(pair, dom):
    pair.b.configure(memory_mib=16)
    pair.b.kill_agent()
    pair.start(pair.b)
    pair.begin(dom, pair.a, JOB, 2)
    reason = b_(pair).wait_migration(JOB, lambda m: m["failed"], "failed")["reason"]
    assert "MiB" in reason and "hostB" in reason
    a_(pair).wait_migration(JOB, lambda m: m["failed"], "failed")
    pair.end()
    runs_only_on(pair, pair.a, 1)
