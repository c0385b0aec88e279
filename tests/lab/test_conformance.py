"""Three real corosyncs, by clusterd's own link to them, held to the rules that the simulated group is held to.

Bare corosync, no clusterd: cpg_probe on each host writes down what it is told, group_rules.py judges it. The simulated side is
tests/sim/group_trace.c, with the same scenarios. hostC is the one that suffers.
"""

import os
import subprocess
import time

import pytest
from group_rules import SIGHTS, Trace, changes, sights, violations

from labkit import LabError
from labkit.cluster import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")

HOSTS = ("hostA", "hostB", "hostC")
TRACE = "/var/log/gantry/probe.trace"


@pytest.fixture(scope="module")
def lab():
    from conftest import make_lab
    with make_lab("conformance") as made:
        assert probe_of(made).exists(), "build it first"
        made.write_corosync()
        yield made


def probe_of(lab):
    return lab.build / "tests" / "lab" / "cpg_probe"


class Group:
    """The probes of one scenario."""

    def __init__(self, lab):
        self.lab = lab
        self.probes = {}
        for host in HOSTS:
            lab.host_path(host, TRACE).unlink(missing_ok=True)
            self.begin(host)
        self.wait_together(40)

    def begin(self, host):
        self.probes[host] = self.lab.spawn(host, [str(probe_of(self.lab)), TRACE], stdin=subprocess.PIPE)

    def kill(self, host):
        probe = self.probes.pop(host)
        probe.kill()
        probe.wait()
        probe.stdin.close()

    def send(self, n, *hosts):
        for host in hosts or HOSTS:
            self.probes[host].stdin.write(b"send %d\n" % n)
            self.probes[host].stdin.flush()

    def traffic(self, seconds, *hosts):
        """A few messages of each all the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if hosts:
                self.send(2, *hosts)
            time.sleep(0.02)

    def lines(self, host):
        """What is whole; a line may be half there."""
        path = self.lab.host_path(host, TRACE)
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def last_view(self, host):
        views = [line.split()[2:] for line in self.lines(host) if " view " in line]
        return tuple(views[-1]) if views else ("", "")

    def wait_members(self, members, *hosts, sending=(), timeout=15):
        def there():
            self.traffic(0.02, *sending)
            return all(self.last_view(host)[1] == members for host in hosts)
        wait_until(f"{hosts} are in a view of {members}", there, timeout, interval=0)

    def wait_together(self, timeout=30, sending=()):
        def together():
            self.traffic(0.02, *sending)
            views = {self.last_view(host) for host in HOSTS}
            return len(views) == 1 and views.pop()[1] == "1,2,3"
        wait_until("one view of all three", together, timeout, interval=0)

    def end(self):
        """All is well again: a last word of everybody, heard by everybody; then the trace."""
        for _ in range(4):
            self.wait_together()
            if self.heard_by_all():
                break
        else:
            raise LabError("what everybody says is not heard by everybody, again and again")
        trace = self.trace()
        self.close()
        return trace

    def heard_by_all(self):
        """False if it takes too long: a change that was on its way may have swallowed it."""
        self.send(50)
        time.sleep(0.3)
        last = [[line.split()[2:] for line in self.lines(host) if " sent " in line][-1] for host in HOSTS]
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            heard = [[line.split()[3:] for line in self.lines(host) if " msg " in line] for host in HOSTS]
            if all(message in words for message in last for words in heard):
                return True
            time.sleep(0.1)
        return False

    def trace(self):
        return Trace(line for host in HOSTS for line in self.lines(host))

    def close(self):
        for host in list(self.probes):
            self.kill(host)


@pytest.fixture
def group(lab):
    lab.heal()
    made = Group(lab)
    yield made
    lab.heal()
    lab.thaw("hostC")
    made.close()


def judge(name, group):
    trace = group.end()
    count = sights(trace)
    messages = sum(len(view.messages) for view in trace.views())
    print(f"{name}: messages {messages}, " + ", ".join(f"{sight} {count[sight]}" for sight in SIGHTS))
    assert not violations(trace)
    assert messages
    return trace, count


def test_quiet(group):
    before = group.last_view("hostA")
    group.send(300)
    trace, count = judge("quiet", group)
    assert group.last_view("hostA") == before
    assert not count["late"] and not count["kept_to_itself"]
    assert sum(len(view.messages) for view in trace.views()) >= 3 * 3 * 300


def test_cut_and_merge(lab, group):
    group.traffic(0.1, *HOSTS)
    group.send(200, "hostA", "hostB")
    group.send(6000, "hostC")   # so many that the cut falls into the middle of them
    lab.cut("hostC")
    group.wait_members("1,2", "hostA", "hostB", sending=HOSTS)
    group.wait_members("3", "hostC", sending=HOSTS)
    group.traffic(0.3, *HOSTS)
    lab.heal()
    group.wait_together(sending=HOSTS)
    _, count = judge("cut_and_merge", group)
    # Self-delivery proves nothing: what the simulated group must show as well.
    assert count["kept_to_itself"] or count["late"]


@pytest.mark.parametrize("seconds", [0.3, 1.3])
def test_cut_briefly(lab, group, seconds):
    """Over before it is noticed, or about when it is."""
    group.traffic(0.1, *HOSTS)
    group.send(200, "hostA", "hostB")
    group.send(2000, "hostC")
    lab.cut("hostC")
    group.traffic(seconds, *HOSTS)
    lab.heal()
    group.traffic(0.5, *HOSTS)
    group.wait_together(sending=HOSTS)
    judge(f"cut_briefly, {seconds} s", group)


def test_frozen_long(lab, group):
    group.traffic(0.1, *HOSTS)
    group.send(400, "hostC")
    lab.freeze("hostC")
    group.traffic(0.3, "hostA", "hostB")
    group.send(100, "hostC")   # read when it thaws, and sent before it knows what happened
    group.wait_members("1,2", "hostA", "hostB", sending=("hostA", "hostB"))
    group.traffic(0.3, "hostA", "hostB")
    lab.thaw("hostC")
    group.wait_together(sending=HOSTS)
    judge("frozen_long", group)


def test_frozen_briefly(lab, group):
    group.traffic(0.1, *HOSTS)
    group.send(400, "hostC")
    before = changes(group.trace())
    lab.freeze("hostC")
    group.traffic(0.2, "hostA", "hostB")
    lab.thaw("hostC")
    group.traffic(0.2, *HOSTS)
    trace, count = judge("frozen_briefly", group)
    # Shorter than the token: nobody notices.
    assert changes(trace) == before
    assert not count["late"] and not count["kept_to_itself"]


def test_process_hung(lab, group):
    group.traffic(0.1, *HOSTS)
    before = changes(group.trace())
    lab.exec("hostC", ["pkill", "-STOP", "cpg_probe"])
    group.traffic(1.5, *HOSTS)
    lab.exec("hostC", ["pkill", "-CONT", "cpg_probe"])
    trace, _ = judge("process_hung", group)
    assert changes(trace) == before


def test_process_killed(group):
    group.traffic(0.1, *HOSTS)
    group.send(400)
    group.kill("hostC")
    group.wait_members("1,2", "hostA", "hostB", timeout=3)
    group.traffic(0.2, "hostA", "hostB")
    group.begin("hostC")
    group.wait_together(sending=("hostA", "hostB"))
    group.traffic(0.2, *HOSTS)
    judge("process_killed", group)


def test_processes_come_and_go(group):
    """Within one ring: the others are in views of the same members again and again, and each is another view."""
    for _ in range(3):
        group.kill("hostC")
        group.wait_members("1,2", "hostA", "hostB", timeout=3)
        group.traffic(0.1, "hostA", "hostB")
        group.begin("hostC")
        group.wait_together()
    judge("processes_come_and_go", group)


def test_corosync_killed(lab, group):
    group.traffic(0.1, *HOSTS)
    group.send(400)
    lab.service("hostC", "kill", "corosync")
    group.wait_members("1,2", "hostA", "hostB", sending=HOSTS)
    group.wait_together(sending=HOSTS)
    group.traffic(0.2, *HOSTS)
    judge("corosync_killed", group)
