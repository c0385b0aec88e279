"""The lab tests itself: what every other lab test relies on. Needs root; no program of ours but observer and guest."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE / "tools"))

from labkit import Lab, LabError  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")

NAME = f"selftest{os.getpid()}"
GUEST = "10.80.0.51"


def wait_until(what, condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.05)


def members(lab, host):
    """Names of the hosts that corosync on `host` sees in a quorate membership, else an empty set."""
    said = lab.exec(host, ["corosync-quorumtool", "-s"], check=False).stdout
    return {name for name in lab.hosts if f" {name}" in said} if "Quorate:          Yes" in said else set()


def reachable(lab, host, other):
    """Whether a datagram makes the way and its answer comes back; nobody listens, so the answer is a refusal."""
    probe = ("import socket,sys; s=socket.socket(socket.AF_INET, socket.SOCK_STREAM); s.settimeout(0.4)\n"
             "try: s.connect((sys.argv[1], 9))\n"
             "except ConnectionRefusedError: sys.exit(0)\n"
             "except OSError: sys.exit(1)\n")
    return lab.exec(host, ["/usr/bin/python3", "-ISEc", probe, other], check=False).returncode == 0


@pytest.fixture(scope="module")
def lab():
    with Lab(NAME, hosts=3, with_parent=os.getpid()) as made:
        made.write_corosync()
        wait_until("three quorate members", lambda: all(members(made, host) == set(made.hosts)
                                                        for host in made.hosts))
        yield made


@pytest.fixture(autouse=True)
def whole_again(request):
    """Every test leaves the shared lab as it found it, also when it fails."""
    yield
    if "lab" not in request.fixturenames:
        return
    lab = request.getfixturevalue("lab")
    for line in ("delay 0", "fail off", "lie off"):
        lab.power(line)
    lab.heal()
    lab.store("start")
    for host in lab.hosts:
        lab.on(host)
        lab.thaw(host)
        lab.service(host, "start", "corosync")
    wait_until("the cluster is whole again", lambda: all(members(lab, host) == set(lab.hosts) for host in lab.hosts))


def test_second_up_of_a_name_is_refused(lab):
    with pytest.raises(LabError, match="up already"):
        Lab(NAME).up()
    assert lab.is_up()


def test_hosts_are_apart(lab):
    assert lab.exec("hostB", ["hostname"]).stdout == "hostB\n"
    paths = (f"/run/{NAME}.only-here", f"/dev/shm/{NAME}.only-here")
    lab.exec("hostA", ["touch", *paths])
    for path in paths:
        assert lab.exec("hostB", ["test", "-e", path], check=False).returncode == 1
        assert not Path(path).exists()
    assert reachable(lab, "hostA", "hostB")
    lab.host_path("hostA", "/etc/gantry/mark").write_text("A")
    assert lab.exec("hostA", ["cat", "/etc/gantry/mark"]).stdout == "A"
    assert lab.exec("hostB", ["test", "-e", "/etc/gantry/mark"], check=False).returncode == 1


def test_exec_is_fast_and_bounded(lab):
    started = time.monotonic()
    for _ in range(10):
        lab.exec("hostA", ["true"])
    assert (time.monotonic() - started) / 10 < 0.05
    with pytest.raises(LabError, match="did not end within"):
        lab.exec("hostA", ["sleep", "1234.5"], timeout=0.3)
    wait_until("the command died with its caller",
               lambda: "1234.5" not in lab.exec("hostA", ["ps", "-eo", "args"]).stdout, 5)


def test_kill_is_a_power_loss(lab):
    lab.exec("hostB", ["sh", "-c", "echo kept > /var/lib/gantry/disk; echo lost > /run/memory"])
    orphan = lab.spawn("hostB", ["sleep", "600"])
    lab.kill("hostB")
    assert orphan.wait(timeout=5) != 0
    with pytest.raises(LabError, match="is off"):
        lab.exec("hostB", ["true"])
    wait_until("the others see it gone", lambda: members(lab, "hostA") == {"hostA", "hostC"})
    lab.on("hostB")
    assert lab.exec("hostB", ["cat", "/var/lib/gantry/disk"]).stdout == "kept\n"
    assert lab.exec("hostB", ["test", "-e", "/run/memory"], check=False).returncode == 1


def test_a_rebooted_host_is_found_at_once(lab):
    """Cards and bridges keep their addresses: whatever the others remember of a neighbour stays true."""
    for _ in range(3):
        for host in ("hostB", "10.79.0.254"):
            assert reachable(lab, "hostA", host)
        lab.kill("hostB")
        lab.on("hostB")
        assert reachable(lab, "hostA", "hostB")
        assert reachable(lab, "hostA", "10.79.0.254")


def test_cut_and_heal(lab):
    lab.cut("hostC")
    assert not reachable(lab, "hostA", "hostC")
    wait_until("the majority goes on", lambda: members(lab, "hostA") == {"hostA", "hostB"})
    wait_until("the minority is not quorate", lambda: not members(lab, "hostC"))
    lab.heal("hostC")
    wait_until("all are back", lambda: members(lab, "hostC") == set(lab.hosts))


@pytest.mark.parametrize("direction, sent_arrives, received_arrives", [("out", False, True), ("in", True, False)])
def test_one_way_cut(lab, direction, sent_arrives, received_arrives):
    """Counts what really crosses: one datagram each way between hostA and hostC."""
    receiver = ("import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7))\n"
                "s.settimeout(1.5); print('ready', flush=True)\n"
                "try: print(s.recv(9).decode())\n"
                "except TimeoutError: print('nothing')\n")
    sender = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'datagram', ('%s', 7))"
    # neighbours must be known beforehand: a one-way cable cannot ask for them
    for here, there in (("hostA", "hostC"), ("hostC", "hostA")):
        assert reachable(lab, here, there)
    lab.cut("hostC", direction)
    for here, there, arrives in (("hostC", "hostA", sent_arrives), ("hostA", "hostC", received_arrives)):
        listening = lab.spawn(there, ["/usr/bin/python3", "-c", receiver], stdout=subprocess.PIPE, text=True)
        assert listening.stdout.readline() == "ready\n"
        lab.exec(here, ["/usr/bin/python3", "-c", sender % there])
        assert listening.communicate(timeout=5)[0] == ("datagram\n" if arrives else "nothing\n")


def test_a_cut_outlasts_a_reboot(lab):
    lab.cut("hostB")
    lab.kill("hostB")
    lab.on("hostB")
    assert not reachable(lab, "hostA", "hostB")
    assert lab.status()["hosts"][1]["cuts"] == ["both"]


def test_freeze_and_thaw(lab):
    ticking = lab.spawn("hostC", ["sh", "-c", "while :; do echo x; sleep 0.02; done"], stdout=subprocess.PIPE)
    ticking.stdout.readline()
    brief = lab.spawn("hostC", ["sleep", "0.5"])
    lab.freeze("hostC")
    states = lab.exec("hostC", ["ps", "-eo", "stat=,args="]).stdout.splitlines()
    assert [line for line in states if "corosync" in line][0].startswith("T")
    assert all(line.startswith("T") for line in states if "ps -eo" not in line), states
    wait_until("the others give up on it", lambda: members(lab, "hostA") == {"hostA", "hostB"})
    with pytest.raises(subprocess.TimeoutExpired):
        brief.wait(timeout=1)
    lab.thaw("hostC")
    ticking.stdout.readline()
    assert brief.wait(timeout=5) == 0, "whoever ran a command in the host is told its end after all"
    wait_until("all are back", lambda: members(lab, "hostC") == set(lab.hosts))
    ticking.kill()
    ticking.wait(timeout=5)


def test_a_frozen_host_can_be_switched_off(lab):
    lab.freeze("hostB")
    lab.kill("hostB")
    assert lab.power("status hostB") == "ok off"


def test_services(lab):
    before = lab.services("hostA")["corosync"]
    lab.service("hostA", "kill", "corosync")
    killed = time.monotonic()
    assert lab.services("hostA")["corosync"]["pid"] == 0
    wait_until("it is restarted", lambda: lab.services("hostA")["corosync"]["pid"] != 0, 5)
    assert 0.5 < time.monotonic() - killed < 3
    assert lab.services("hostA")["corosync"]["starts"] == before["starts"] + 1
    asked = time.monotonic()
    lab.service("hostA", "stop", "corosync")
    assert time.monotonic() - asked < 8, "an orderly end, not the kill after the deadline"
    time.sleep(1.5)
    assert lab.services("hostA")["corosync"]["pid"] == 0
    assert lab.service("hostA", "restart", "corosync")["pid"] != 0
    wait_until("it is itself", lambda: lab.exec("hostA", ["pgrep", "-x", "corosync"], check=False).returncode == 0, 5)
    lab.service("hostA", "pause", "corosync")
    assert lab.exec("hostA", ["ps", "-C", "corosync", "-o", "stat="]).stdout.startswith("T")
    lab.service("hostA", "cont", "corosync")
    assert "host.yaml" in lab.services("hostA")["clusterd"]["missing"]
    with pytest.raises(LabError, match="no service"):
        lab.service("hostA", "stop", "nonsense")


FEED = ("import sys,time; fifo=open('/run/lab/watchdog','wb',buffering=0)\n"
        "for word in sys.argv[1:]: fifo.write(word.encode()); time.sleep(0.4)\n")


def tool(*words):
    return subprocess.run([TREE / "tools" / "lab", "--name", NAME, *words], capture_output=True, text=True, check=True).stdout


def power(lab, host):
    return next(known["power"] for known in lab.status()["hosts"] if known["name"] == host)


def test_hardware_watchdog_takes_the_power_of_a_host_that_feeds_it_no_more(lab):
    settings = lab.host_path("hostB", "/etc/gantry/host.yaml")
    settings.write_text("watchdog_timeout_s: 1\n")  # without a name in it our daemons, if they are built, end at once
    try:
        lab.exec("hostB", ["/usr/bin/python3", "-ISEc", FEED, *"1111V"])
        time.sleep(1.5)
        assert power(lab, "hostB") == "on", "fed, then disarmed by a V before the close"
        assert "watchdog armed" not in tool("status")
        lab.exec("hostB", ["/usr/bin/python3", "-ISEc", FEED, *"V1"])
        closed = time.monotonic()
        wait_until("armed, and closed without a V", lambda: power(lab, "hostB") == "off", 5)
        assert 0.4 < time.monotonic() - closed < 3
        lab.on("hostB")
        lab.exec("hostB", ["sh", "-c", '"$@" >/dev/null 2>&1 &', "sh", "/usr/bin/python3", "-ISEc", FEED, *("1" * 50)])
        time.sleep(1.5)
        assert power(lab, "hostB") == "on", "not armed by the last boot, and fed"
        assert "watchdog armed" in tool("status")
        lab.freeze("hostB")
        wait_until("frozen, it feeds nothing", lambda: power(lab, "hostB") == "off", 5)
        assert [e["host"] for e in lab.events() if e["event"] == "watchdog-fired"] == ["hostB"] * 2
    finally:
        lab.on("hostB")
        settings.unlink()


def test_a_host_can_have_a_wrong_clock(lab):
    library = lab.build / "tests" / "lab" / "libshift-clock.so"
    read = ["env", f"LD_PRELOAD={library}", "LAB_CLOCK=/run/lab/clock", "date", "+%s"]
    for seconds in (0, -3600, 7200):
        lab.clock("hostB", seconds)
        assert abs(int(lab.exec("hostB", read).stdout) - (time.time() + seconds)) < 3
    lab.service("hostB", "restart", "corosync")
    environment = lab.exec("hostB", ["sh", "-c", "tr '\\0' '\\n' < /proc/$(pidof corosync)/environ"]).stdout
    assert "LAB_CLOCK=/run/lab/clock" in environment
    assert "LAB_CLOCK" not in lab.exec("hostA", ["sh", "-c", "tr '\\0' '\\n' < /proc/$(pidof corosync)/environ"]).stdout
    lab.kill("hostB")  # a new boot has the right time again


def test_orphans_outlive_their_parent_and_are_reaped(lab):
    with pytest.raises(LabError, match="did not end"):
        lab.exec("hostA", ["sh", "-c", "setsid sleep 2.5 &"], timeout=0.5)
    lab.exec("hostA", ["sh", "-c", "(setsid sleep 0.7 & setsid sleep 5432 &) >/dev/null 2>&1"])
    assert "sleep 5432" in lab.exec("hostA", ["ps", "-eo", "args"]).stdout
    wait_until("no zombie is left", lambda: " Z" not in " " + lab.exec("hostA", ["ps", "-eo", "stat="]).stdout
               and "sleep 0.7" not in lab.exec("hostA", ["ps", "-eo", "args"]).stdout, 5)
    lab.exec("hostA", ["pkill", "-f", "sleep 5432"])


def fence(lab, action, plug, host="hostA"):
    return lab.exec(host, ["fence_lab"], check=False, input=f"action={action}\nplug={plug}\nip=10.79.0.254\n")


def test_fence_agent(lab):
    assert fence(lab, "status", "hostB").returncode == 0
    assert fence(lab, "off", "hostB").returncode == 0
    with pytest.raises(LabError, match="is off"):
        lab.exec("hostB", ["true"])
    assert fence(lab, "status", "hostB").returncode == 2
    assert fence(lab, "off", "2").returncode == 0, "off of what is off is success"
    assert fence(lab, "on", "hostB").returncode == 0
    assert lab.exec("hostB", ["hostname"]).stdout == "hostB\n"
    assert fence(lab, "off", "hostZ").returncode == 1
    metadata = lab.exec("hostA", ["fence_lab", "-o", "metadata"]).stdout
    assert subprocess.run(["xmllint", "--noout", "-"], input=metadata, text=True).returncode == 0


def test_power_controller_can_fail_lie_and_dawdle(lab):
    lab.power("fail on")
    assert fence(lab, "off", "hostB").returncode == 1
    lab.power("fail off")
    lab.power("lie on")
    assert fence(lab, "off", "hostB").returncode == 0
    assert fence(lab, "status", "hostB").returncode == 2
    assert lab.exec("hostB", ["hostname"]).stdout == "hostB\n", "it was a lie"
    lab.power("lie off")
    lab.power("delay 1")
    started = time.monotonic()
    assert fence(lab, "status", "hostB").returncode == 0
    assert time.monotonic() - started >= 1
    assert [event for event in lab.events() if event["event"] == "power"][-1]["command"] == "status hostB"


def test_power_off_answers_only_when_nothing_is_left(lab):
    """The file stops growing before the answer: checked against the answer's own time."""
    mark = lab.host_path("hostB", "/var/lib/gantry/heart")
    writer = lab.spawn("hostB", ["sh", "-c", "while :; do echo x >> /var/lib/gantry/heart; done"])
    wait_until("it beats", mark.exists)
    assert fence(lab, "off", "hostB").returncode == 0
    size = mark.stat().st_size
    time.sleep(0.3)
    assert mark.stat().st_size == size
    writer.wait(timeout=5)


def test_store(lab):
    url = "nfs://10.79.0.254/pool/disk.qcow2"
    lab.exec("hostA", ["qemu-img", "create", "-f", "qcow2", url, "1G"])
    assert "virtual size: 1 GiB" in lab.exec("hostC", ["qemu-img", "info", url]).stdout
    assert lab.store_path("disk.qcow2").exists()
    for action in ("kill", "stop"):
        lab.store(action)
        assert lab.status()["store"] == "off"
        lab.store("start")
        assert "virtual size: 1 GiB" in lab.exec("hostB", ["qemu-img", "info", url], timeout=30).stdout


QEMU = ["qemu-system-x86_64", "-M", "pc-q35-7.2", "-accel", "tcg", "-cpu", "max", "-m", "160", "-nodefaults", "-display",
        "none", "-serial", "stdio"]


@contextlib.contextmanager
def running_guest(lab, host, volume="guest.qcow2"):
    """A guest on `host`, bridged to the guests' network, its disk in the store; yields its Popen after READY."""
    kernel, initrd = lab.guest_files()
    lab.exec(host, ["ip", "-batch", "-"], input="link add gbr0 type bridge\nlink set eth1 master gbr0\n"
             "link set gbr0 up\ntuntap add tap0 mode tap\nlink set tap0 master gbr0 up\n")
    guest = lab.spawn(host, [
        *QEMU, "-kernel", str(kernel), "-initrd", str(initrd), "-append",
        f"console=ttyS0 quiet gw.ip={GUEST} gw.mb=16 gw.rate=2 gw.disk_ms=50", "-netdev",
        "tap,id=n,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n", "-blockdev",
        f'{{"driver":"{volume.rpartition(".")[2]}","node-name":"d","file":{{"driver":"nfs","server":'
        f'{{"type":"inet","host":"10.79.0.254"}},"path":"/pool/{volume}"}}}}', "-device", "virtio-blk-pci,drive=d"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    alarm = threading.Timer(60, guest.kill)  # a guest that hangs must not hang the test
    alarm.start()
    try:
        read_console(guest, "READY boot=")
        yield guest
    finally:
        alarm.cancel()
        guest.kill()
        guest.wait()


def read_console(guest, word):
    for line in guest.stdout:
        if word in line:
            return line.strip()
    raise AssertionError(f"the guest ended before it said {word}")


def test_guest_observer_and_disk_log(lab):
    lab.exec("hostA", ["qemu-img", "create", "-f", "qcow2", "nfs://10.79.0.254/pool/guest.qcow2", "64M"])
    with running_guest(lab, "hostA") as guest:
        assert "DISK ok 0 records boots 0" in read_console(guest, "DISK")
        assert lab.observer.wait_tick(GUEST, timeout=10)
        time.sleep(1)
        guest.stdin.write("verify\n")
        assert "VERIFY ok pages=4096" in read_console(guest, "VERIFY ")
        started = time.monotonic()
        lab.cut("hostA", "guest")
        time.sleep(0.5)
        lab.heal("hostA")
        assert lab.observer.wait_tick(GUEST, timeout=10)
        gap = lab.observer.gaps(started - 0.05, None, GUEST)[0]
        assert 0.4 < gap.seconds < 3 and gap.same_boot and gap.seq_after > gap.seq_before + 10
        assert not lab.observer.faults(GUEST, started)
        guest.stdin.write("damage\nverify\n")
        assert "VERIFY BAD" in read_console(guest, "VERIFY ")
        lab.kill("hostA")
        killed = time.monotonic()
    last = lab.observer.last_tick(GUEST)
    assert last.time < killed and last.disk_records > 10
    lab.on("hostA")
    checked = subprocess.run([TREE / "tests/lab/guest/disklog", lab.store_path("guest.qcow2")], capture_output=True,
                             text=True)
    assert checked.returncode == 0, checked.stdout
    assert int(checked.stdout.split("records=")[1].split()[0]) >= last.disk_records, "an acknowledged write is lost"
    with running_guest(lab, "hostA") as guest:
        assert "boots 1" in read_console(guest, "DISK ok")
        first = lab.observer.wait_tick(GUEST, since=killed, timeout=10)
        assert first.boot != last.boot
        wait_until("the disk's records are counted on", lambda: lab.observer.last_tick(GUEST).disk_records
                   > last.disk_records, 5)


def test_guest_finds_a_second_writer(lab):
    lab.exec("hostB", ["qemu-img", "create", "-f", "raw", "nfs://10.79.0.254/pool/shared.raw", "16M"])
    volume = lab.store_path("shared.raw")
    with running_guest(lab, "hostB", "shared.raw") as guest:
        # the tests before left ticks of the same address
        started = lab.observer.wait_tick(GUEST, timeout=10)
        wait_until("it writes", lambda: lab.observer.last_tick(GUEST).boot == started.boot
                   and lab.observer.last_tick(GUEST).disk_records > 10)
        assert not lab.observer.last_tick(GUEST).disk_errors
        with open(volume, "r+b") as other:
            record = other.read(512)
            other.seek(lab.observer.last_tick(GUEST).disk_records * 512)
            other.write(record * 20)
        assert "changed by somebody else" in read_console(guest, "DISK BAD")
        wait_until("the ticks tell", lambda: lab.observer.last_tick(GUEST).disk_errors > 0, 5)
        assert lab.observer.faults(GUEST, started.time)


def test_disklog_finds_damage(tmp_path):
    """The checker against a log made here: whole, with a hole, with a changed record, and foreign data."""
    import importlib.machinery
    import importlib.util
    loader = importlib.machinery.SourceFileLoader("disklog", str(TREE / "tests/lab/guest/disklog"))
    disklog = importlib.util.module_from_spec(importlib.util.spec_from_loader("disklog", loader))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(disklog)
    sys.dont_write_bytecode = before
    assert disklog.crc32c(b"123456789") == 0xe3069283
    blocks, crc = [], 0
    for seq in range(9):
        block = disklog.RECORD.pack(disklog.MAGIC, 7, seq, 1, 0, crc, 512, b"", 0)[:-4]
        crc = disklog.crc32c(block)
        blocks.append(block + crc.to_bytes(4, "little"))
    zero = bytes(512)
    hole = [*blocks[:4], zero, *blocks[5:]]
    swapped = [*blocks[:4], blocks[5], blocks[4], *blocks[6:]]
    for content, ok, word in ((blocks, True, None), ([zero], True, None), (hole, False, "missing"),
                              (swapped, False, "chain"), ([b"x" * 512], False, "no disk of a lab guest")):
        volume = tmp_path / "volume.raw"
        volume.write_bytes(b"".join(content).ljust(1 << 20, b"\0"))
        result = disklog.check_volume(volume)
        assert result["ok"] is ok, result
        assert ok or word in result["error"]
    assert disklog.check(open(tmp_path / "volume.raw", "rb"))["records"] == 0


def processes_of(state):
    """Pids of all processes of the machine that have the lab's folder on their command line."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and str(state).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def test_nothing_is_left_when_the_supervisor_is_killed():
    lab = Lab(NAME + "k", hosts=2).up()
    try:
        lab.spawn("hostA", ["sleep", "4321"]).poll()
        pid = int(lab.state.joinpath("supervisor.json").read_text().split('"pid": ')[1].split(",")[0])
        assert len(processes_of(lab.state)) >= 5
        os.kill(pid, signal.SIGKILL)
        wait_until("every process is gone", lambda: not processes_of(lab.state), 5)
        assert str(lab.state) not in Path("/proc/self/mountinfo").read_text()
        # Its PID 1 is there, without a command line, until the kernel has ended all others.
        wait_until("the supervisor is gone", lambda: not lab.is_up(), 10)
        with pytest.raises(LabError, match="is not up"):
            lab.exec("hostA", ["true"])
        again = Lab(NAME + "k", hosts=1).up()
        assert again.hosts == ["hostA"], "what the dead lab left does not count"
    finally:
        lab.down()
    assert not lab.state.exists()


def test_a_lab_follows_its_parent():
    parent = subprocess.Popen(["sleep", "600"])
    lab = Lab(NAME + "p", hosts=1, with_parent=parent.pid).up()
    try:
        assert lab.exec("hostA", ["hostname"]).stdout == "hostA\n"
        parent.kill()
        parent.wait()
        wait_until("it is gone with its folder", lambda: not lab.state.exists() and not processes_of(lab.state), 5)
    finally:
        lab.down()


def test_two_labs_side_by_side(lab):
    with Lab(NAME + "b", hosts=1, with_parent=os.getpid()) as other:
        other.exec("hostA", ["qemu-img", "create", "-q", "nfs://10.79.0.254/pool/theirs", "1M"])
        assert other.store_path("theirs").exists() and not lab.store_path("theirs").exists()
        other.kill("hostA")
        assert lab.exec("hostA", ["hostname"]).stdout == "hostA\n"


def test_command_line():
    def run(*words):
        return subprocess.run([TREE / "tools/lab", "--name", NAME + "c", *words], capture_output=True, text=True)

    try:
        assert "is not up" in run("status").stderr
        assert run("up", "--hosts", "2").returncode == 0
        assert "up already" in run("up").stderr
        assert run("exec", "hostB", "--", "hostname").stdout == "hostB\n"
        assert run("exec", "hostB", "--", "false").returncode == 1
        assert run("cut", "hostB", "--in").returncode == 0
        assert "cut:in" in run("status").stdout
        assert run("kill", "hostB").returncode == 0
        assert "hostB is off" in run("exec", "hostB", "--", "true").stderr
        assert "waits for /etc/corosync/corosync.conf" in run("service", "hostA", "status").stdout
        assert run("power", "on", "hostB").stdout == "ok on\n"
    finally:
        assert run("down").returncode == 0
    assert "is not up" in run("exec", "hostB", "--", "true").stderr
