"""The agent and its volumes: leases that keep a second host out, volumes made on demand. Run as root with a built tree."""
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agentbox import AGENT, BOOT_SECTOR, Pair, goal, spec, uuid_of, wait_until  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(AGENT), reason="needs root and a built agent")
DOM = uuid_of(1)


@pytest.fixture
def pair():
    with Pair() as p:
        yield p


@pytest.fixture
def dom(pair):
    s = spec(1, disks=[pair.volume("v1", BOOT_SECTOR)])
    pair.run(s, pair.a, 1)
    return s


def test_a_live_lease_keeps_the_other_host_out_until_it_is_released(pair, dom):
    b = pair.pokes["hostB"]
    b.push(domains=[goal(dom, 2)])
    d = wait_until("the reason", lambda: b.domain(DOM).get("reason") and b.domain(DOM))
    assert d["state"] == "starting" and "hostA" in d["reason"]
    assert not pair.b.qemus()
    pair.pokes["hostA"].push(domains=[goal(dom, 1, "stopped", stop_how="destroy")])
    pair.pokes["hostA"].wait_domain(DOM, "stopped")
    b.wait_domain(DOM, "running", 2)


def test_a_proof_breaks_the_lease_and_the_old_holder_ends_itself(pair, dom):
    b = pair.pokes["hostB"]
    b.push(domains=[goal(dom, 2, lease_from="hostA", lease_from_generation=1, lease_proof="test: off confirmed")])
    # hostA still believes in generation 1; its next renewal tells it better. Until then the image lock of its QEMU, which
    # counts here because both hosts have one kernel, lets hostB's start wait.
    d = pair.pokes["hostA"].wait_domain(DOM, "crashed", 1, timeout=15)
    assert "newer" in d["reason"] or "generation 2" in d["reason"]
    assert not pair.a.qemus()
    b.wait_domain(DOM, "running", 2)


def test_a_lost_pool_is_waited_for_then_named(pair, dom):
    s = spec(2, disks=[{"vdev": "xvda", "pool": "p", "volume": "none", "format": "raw"}])
    a = pair.pokes["hostA"]
    a.push(domains=[goal(dom, 1), goal(s, 1)])
    d = a.wait_domain(uuid_of(2), "failed")
    assert "none" in d["reason"]
    assert a.domain(DOM)["state"] == "running"


def volume_goal(job, state="creating", **more):
    return {"volume": {"pool": "p", "name": "made", "format": "qcow2", "size_bytes": 8 << 20, "state": state,
                       "host": "hostA", "job_id": job, **more}}


def volume_report(poke, job):
    return next((v for v in poke.report().get("volumes", []) if int(v["job_id"]) == job), None)


def test_volumes_are_made_once_and_deleted(pair):
    a = pair.pokes["hostA"]
    path = f"{pair.folder}/share/made.qcow2"
    a.push(volumes=[volume_goal(3)])
    assert wait_until("the report", lambda: volume_report(a, 3))["ok"] and os.path.exists(path)
    made = os.stat(path).st_ino
    a.push()
    time.sleep(0.3)
    assert os.stat(path).st_ino == made
    # The agent ends before it could say so: it begins anew and does not trip over its own file.
    pair.a.kill_agent()
    a = pair.start(pair.a)
    assert wait_until("the report", lambda: volume_report(a, 3))["ok"]
    a.push(volumes=[])
    wait_until("no report", lambda: volume_report(a, 3) is None)
    a.push(volumes=[volume_goal(4)])
    report = wait_until("the report", lambda: volume_report(a, 4))
    assert not report["ok"] and "made" in report["reason"], "somebody else's file is not touched"
    assert os.path.exists(path)
    a.push(volumes=[volume_goal(5, "deleting")])
    assert wait_until("the report", lambda: volume_report(a, 5))["ok"] and not os.path.exists(path)


def test_pools_are_reported(pair):
    a = pair.pokes["hostA"]
    pools = wait_until("pools", lambda: [p for p in a.report().get("pools", []) if p["ok"]])
    assert pools[0]["name"] == "p" and int(pools[0]["free_bytes"]) > 0
