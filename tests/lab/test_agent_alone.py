"""The agent without a cluster: goals in, reports out, real QEMUs. Run as root with a built tree."""
import os
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from agentbox import AGENT, BOOT_SECTOR, Box, Poke, goal, spec, uuid_of, wait_until  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(AGENT), reason="needs root and a built agent")
DOM = uuid_of(1)


def boot_disk(box, name="boot.img"):
    box.write(f"/run/{name}", BOOT_SECTOR.ljust(1 << 20, b"\0"))
    return {"vdev": "xvda", "path": f"/run/{name}", "format": "raw"}


def bios_spec(box, n=1, **more):
    return spec(n, disks=[boot_disk(box, f"boot{n}.img")], **more)


@pytest.fixture
def box():
    with Box("hostA") as b:
        b.start_agent()
        yield b


@pytest.fixture
def poke(box):
    p = Poke(box)
    wait_until("the host's report", lambda: p.report().get("host", {}).get("accel"), 20)
    yield p


def running(poke, box, generation=1, **more):
    poke.push(domains=[goal(bios_spec(box, **more), generation)])
    return poke.wait_domain(DOM, "running", generation)


def test_host_is_described(box, poke):
    host = poke.report()["host"]
    assert host["name"] == "hostA" and host["accel"] == "tcg" and host["qemu_version"].startswith("7.")
    assert int(host["memory_bytes"]) == 4096 << 20 and int(host["cpus"]) > 0


def test_start_pause_unpause_destroy(box, poke):
    d = running(poke, box)
    assert int(d["pid"]) > 0 and d["accel"] == "tcg" and len(box.qemus()) == 1
    g = poke.goals["domains"]
    g[0]["goal"] = "paused"
    poke.push()
    poke.wait_domain(DOM, "paused")
    g[0]["goal"] = "running"
    poke.push()
    poke.wait_domain(DOM, "running")
    assert int(poke.domain(DOM)["pid"]) == int(d["pid"])
    g[0].update(goal="stopped", stop_how="destroy")
    poke.push()
    poke.wait_domain(DOM, "stopped")
    assert box.qemus() == [] and os.listdir(box.path("/run/gantry/domains")) == []


def test_repeated_goals_change_nothing(box, poke):
    pid = running(poke, box)["pid"]
    for _ in range(20):
        poke.push()
    time.sleep(0.5)
    assert poke.domain(DOM)["pid"] == pid and len(box.qemus()) == 1


def test_an_older_goal_is_refused_also_after_a_restart(box, poke):
    poke.push(epoch=5, index=10)
    running(poke, box)
    poke.goals.update(epoch=4, index=500)
    poke.push(domains=[])
    wait_until("the refusal", lambda: poke.errors)
    assert "older" in poke.errors[0]["text"] and len(box.qemus()) == 1
    wait_until("the note", lambda: " 5 12" in box.read("/var/lib/gantry/agent/goals"))
    box.kill_agent()
    box.start_agent()
    again = Poke(box)
    again.goals.update(epoch=4, index=900)
    again.push(domains=[])
    wait_until("the refusal", lambda: again.errors)
    assert "older" in again.errors[0]["text"] and len(box.qemus()) == 1


def test_a_newer_generation_replaces_the_qemu(box, poke):
    pid = running(poke, box)["pid"]
    d = running(poke, box, 2)
    assert d["pid"] != pid and len(box.qemus()) == 1
    poke.push(domains=[goal(bios_spec(box), 1)])
    time.sleep(0.5)
    assert len(box.qemus()) == 1, "a goal of an older generation touches nothing"


def test_without_a_goal_it_is_killed(box, poke):
    running(poke, box)
    poke.push(domains=[])
    wait_until("no QEMU", lambda: not box.qemus(), 3)
    wait_until("a clean folder", lambda: os.listdir(box.path("/run/gantry/domains")) == [], 3)


def test_missing_files_are_named(box, poke):
    poke.push(domains=[goal(spec(1, kernel="/boot/no-such-kernel")), goal(spec(2, disks=[
        {"vdev": "xvda", "path": "/run/none.img", "format": "raw"}])), goal(spec(3, disks=[
            {"vdev": "xvda", "pool": "fast", "volume": "web"}]))])
    assert "/boot/no-such-kernel" in poke.wait_domain(uuid_of(1), "failed")["reason"]
    assert "/run/none.img" in poke.wait_domain(uuid_of(2), "failed")["reason"]
    assert "fast" in poke.wait_domain(uuid_of(3), "failed")["reason"]
    assert box.qemus() == [] and os.listdir(box.path("/run/gantry/domains")) == []


def test_a_qemu_that_will_not_start_gives_its_last_words(box, poke):
    poke.push(domains=[goal(bios_spec(box, machine="pc-q35-99.9"))])
    reason = poke.wait_domain(DOM, "failed")["reason"]
    assert "unsupported machine type" in reason
    # The same generation is not tried again; a new one is.
    time.sleep(0.5)
    assert box.qemus() == []
    running(poke, box, 2)


def test_guest_ends(box, poke):
    def typed(generation, key):
        running(poke, box, generation)
        console = Poke(box, "test")
        console.send({"console_open": {"domain": "dom1", "history_bytes": 65536}})
        wait_until("dots", lambda: "." in console.console, 15)
        box_type(console, key)
        return console

    console = typed(1, "q")
    d = poke.wait_domain(DOM, "stopped", 1)
    assert d["guest_shutdown"]
    wait_until("the end of the console", lambda: "[closed: " in console.console)
    typed(2, "p")
    assert "panicked" in poke.wait_domain(DOM, "crashed", 2)["reason"]
    pid = typed(3, "r") and poke.domain(DOM)["pid"]
    time.sleep(1)
    assert poke.domain(DOM)["state"] == "running" and poke.domain(DOM)["pid"] == pid, "a reset stays in its QEMU"


def box_type(console, text):
    console.send("type " + text)


def test_a_killed_qemu_is_a_crash(box, poke):
    running(poke, box)
    os.kill(box.qemus()[0], signal.SIGKILL)
    assert "signal 9" in poke.wait_domain(DOM, "crashed", 1)["reason"]
    time.sleep(0.5)
    assert box.qemus() == []
    running(poke, box, 2)


def test_restarts_of_the_agent_do_not_touch_the_guest(box, poke):
    pid = running(poke, box)["pid"]
    for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        box.kill_agent(sig)
        assert len(box.qemus()) == 1
        box.start_agent()
        time.sleep(0.5)
        assert len(box.qemus()) == 1, "without goals nothing is killed"
        again = Poke(box)
        again.goals.update(index=poke.goals["index"], domains=poke.goals["domains"])
        poke.goals["index"] += 1
        again.push()
        d = again.wait_domain(DOM, "running", 1)
        assert d["pid"] == pid
        console = Poke(box, "test")
        console.send({"console_open": {"domain": DOM, "history_bytes": 65536, "read_only": True}})
        wait_until("history and dots", lambda: len(console.console) > 5, 10)


def test_an_end_that_was_reported_is_not_forgotten(box, poke):
    """The cluster may act on the word long after it was said: a new agent must not start the same generation again."""
    running(poke, box)
    os.kill(box.qemus()[0], signal.SIGKILL)
    poke.wait_domain(DOM, "crashed", 1)
    box.kill_agent()
    box.start_agent()
    again = Poke(box)
    again.goals.update(index=50, domains=poke.goals["domains"])
    again.push()
    assert "signal 9" in again.wait_domain(DOM, "crashed", 1)["reason"]
    time.sleep(0.5)
    assert box.qemus() == []
    running(again, box, 2)
    again.push(domains=[])
    wait_until("the note is gone", lambda: not os.listdir(box.path("/run/gantry/ended")))


def test_the_death_of_a_qemu_while_the_agent_is_away_is_a_crash(box, poke):
    running(poke, box)
    box.kill_agent()
    os.kill(box.qemus()[0], signal.SIGKILL)
    wait_until("no QEMU", lambda: not box.qemus())
    box.start_agent()
    again = Poke(box)
    again.goals.update(index=50, domains=poke.goals["domains"])
    again.push()
    assert "away" in again.wait_domain(DOM, "crashed", 1)["reason"]
    running(again, box, 2)


def test_self_fence_ends_ha_domains_only(box, poke):
    poke.push(domains=[goal(bios_spec(box)), {**goal(bios_spec(box, 2)), "ha": False}])
    poke.wait_domain(DOM, "running")
    poke.wait_domain(uuid_of(2), "running")
    poke.send("quorum off")
    since = time.monotonic()
    time.sleep(15)
    # A restart in the middle does not begin the countdown anew, and the fence needs no goals.
    box.kill_agent()
    box.start_agent()
    again = Poke(box, quorum="off")
    wait_until("one QEMU left", lambda: len(box.qemus()) == 1, 10)
    assert 19 < time.monotonic() - since < 23
    again.goals.update(index=50, domains=poke.goals["domains"])
    again.push()
    assert "self-fence" in again.wait_domain(DOM, "crashed", 1)["reason"]
    again.wait_domain(uuid_of(2), "running")
    assert again.report()["self_fenced"]
    again.goals["domains"][0] = goal(bios_spec(box), 2)
    again.push()
    time.sleep(0.5)
    assert len(box.qemus()) == 1
    again.send("quorum on")
    again.wait_domain(DOM, "running", 2)
    assert not again.report()["self_fenced"]


def test_without_a_clusterd_nothing_is_fenced(box, poke):
    running(poke, box)
    poke.close()
    time.sleep(23)
    assert len(box.qemus()) == 1, "a clusterd that is away must not cost a domain"


def test_console_one_writer_many_readers(box, poke):
    running(poke, box)
    first, second, third = (Poke(box, "test") for _ in range(3))
    first.send({"console_open": {"domain": "dom1", "history_bytes": 0}})
    wait_until("dots", lambda: "." in first.console, 15)
    second.send({"console_open": {"domain": "dom1", "history_bytes": 65536}})
    wait_until("the refusal", lambda: second.errors)
    assert "read-only" in second.errors[0]["text"]
    third.send({"console_open": {"domain": "dom1", "history_bytes": 65536, "read_only": True}})
    box_type(first, "hallo")
    wait_until("the echo", lambda: all("h" in p.console and "o" in p.console for p in (first, third)))
    first.close()
    second.send({"console_open": {"domain": "dom1"}})
    box_type(second, "Z")
    wait_until("the echo", lambda: "Z" in second.console)
    nobody = Poke(box, "test")
    nobody.send({"console_open": {"domain": "nix"}})
    wait_until("the refusal", lambda: nobody.errors)
    assert "nix" in nobody.errors[0]["text"]


def test_garbage_is_dropped_and_named(box, poke):
    pid = running(poke, box)["pid"]
    bad = Poke(box, "test")
    bad.send("raw ffffffffff")
    assert bad.proc.wait(5) == 3
    for changes in ({"host": "hostB"}, {"domains": [goal(spec(7, uuid="../../../etc"))]},
                    {"domains": [goal(spec(7, name="a/b"))]}, {"domains": [goal(spec(7), 0)]}):
        n = len(poke.errors)
        kept = {k: poke.goals[k] for k in changes}
        poke.push(**changes)
        wait_until("the refusal", lambda n=n: len(poke.errors) > n)
        poke.goals.update(kept)
    poke.push()
    time.sleep(0.3)
    assert poke.domain(DOM)["pid"] == pid


def test_a_qemu_whose_pid_file_was_never_written_is_found_and_ended(box, poke):
    running(poke, box)
    box.kill_agent()
    note = "/run/gantry/domains/" + DOM
    os.unlink(box.path(note + "/pid"))
    box.write(note + "/state.json", box.read(note + "/state.json").replace('"running"', '"starting"'))
    box.start_agent()
    wait_until("no QEMU", lambda: not box.qemus(), 3)
    again = Poke(box)
    again.goals.update(index=50, domains=poke.goals["domains"])
    again.push()
    again.wait_domain(DOM, "running", 1)


def test_taps_come_and_go_with_the_domain(box, poke):
    def taps():
        return [line.split(":")[1].strip() for line in box.run("ip", "-o", "link", "show", "master", "gbr0", check=False).splitlines()]

    running(poke, box, nics=[{"mac": "00:16:3e:00:00:01"}, {"mac": "00:16:3e:00:00:02", "ifname": "web0"}])
    assert len(taps()) == 2 and "web0" in taps()
    # Killed together with its agent: the next one cleans what the note names.
    box.kill_agent()
    os.kill(box.qemus()[0], signal.SIGKILL)
    wait_until("no QEMU", lambda: not box.qemus())
    box.run("ip", "tuntap", "add", "dev", "vif99.0", "mode", "tap")
    box.start_agent()
    again = Poke(box)
    again.goals.update(index=50, domains=poke.goals["domains"])
    again.push()
    again.wait_domain(DOM, "crashed", 1)
    assert taps() == []
    assert "vif99.0" not in box.run("ip", "-o", "link")


def test_vnc_is_reported_and_its_password_set(box, poke):
    d = running(poke, box, displays=[{"vnc": True, "vnc_unused": True, "vnc_password": "secret"}], vga="stdvga")
    d = wait_until("the address", lambda: poke.domain(DOM).get("vnc"))
    assert d == "127.0.0.1:5900"
    assert "secret" not in box.read("/var/log/gantry/qemu-dom1.log") and "not set" not in box.log()


def test_it_ends_quickly_and_says_what_it_is(box, poke):
    assert subprocess.run([AGENT, "--version"], capture_output=True, text=True).stdout.startswith("gantry-agent ")
    assert "--config" in subprocess.run([AGENT, "--help"], capture_output=True, text=True).stdout
    assert subprocess.run([AGENT, "--nonsense"], capture_output=True).returncode == 64
    second = box.run(AGENT, check=False, stderr=subprocess.STDOUT)
    assert "agent.sock" in second, "one agent a host"
    since = time.monotonic()
    assert box.kill_agent(signal.SIGTERM) == 0 and time.monotonic() - since < 1
