"""Bad input: a clear error that names the thing, the right exit status, and nothing is lost."""

import subprocess

import pytest

BAD_DATA, UNAVAILABLE, NO_SUCH, NEEDS_YES, EXISTS, CONSTRAINT, USAGE = 65, 69, 105, 107, 108, 113, 64


def refused(cluster, status, words, *command, host=None):
    """Runs clusterctl, wants this exit status and every one of the words in its error."""
    done = cluster.ctl(*command, check=False, host=host)
    assert done.returncode == status, f"{command}: exit {done.returncode}, stderr: {done.stderr}"
    for word in words:
        assert word in done.stderr, f"{command}: '{word}' is not in: {done.stderr}"


@pytest.fixture(scope="module")
def config(cluster):
    """Writes a cfg on hostA and returns its path."""
    def write(name, text):
        path = f"/run/{name}.cfg"
        cluster.put_file("hostA", path, text)
        return path
    return write


@pytest.fixture(scope="module")
def guest(cluster):
    cluster.add_guest("taken", host="hostA")
    return "taken"


@pytest.mark.parametrize("command", [
    ["shutdown"], ["destroy"], ["pause"], ["unpause"], ["show"], ["start"], ["console"]])
def test_unknown_domain_is_named(cluster, command):
    refused(cluster, NO_SUCH, ["nosuch"], *command, "nosuch")


def test_unknown_things_are_named(cluster, guest):
    refused(cluster, NO_SUCH, ["nosuch"], "migrate", "nosuch", "hostB")
    refused(cluster, NO_SUCH, ["hostZ"], "migrate", guest, "hostZ")
    refused(cluster, NO_SUCH, ["nopool"], "vol", "create", "nopool/x", "1M")
    refused(cluster, NO_SUCH, ["novol"], "vol", "delete", "vms/novol")
    refused(cluster, NO_SUCH, ["hostZ"], "host", "show", "hostZ")
    refused(cluster, NO_SUCH, ["9999"], "task", "cancel", "9999")


def test_wrong_usage_says_how(cluster):
    refused(cluster, USAGE, ["migrate"], "migrate", "only-one")
    refused(cluster, USAGE, ["frobnicate"], "frobnicate")
    refused(cluster, USAGE, ["--nonsense"], "list", "--nonsense")


def test_syntax_error_has_file_line_column(cluster, config):
    refused(cluster, BAD_DATA, ["bad.cfg:3:"], "create", config("bad", 'name = "x"\nmemory = 64\nvcpus = = 2\n'), host="hostA")


def test_unknown_key_is_a_warning_with_its_place(cluster, config):
    path = config("key", 'name = "key"\nmemroy = 64\nkernel = "/nope"\n')
    done = cluster.ctl("create", "--dry-run", path, host="hostA", check=False)
    assert "key.cfg:2:1" in done.stderr and "memroy" in done.stderr, done.stderr


def test_missing_file_is_named(cluster):
    refused(cluster, BAD_DATA, ["/run/not-there.cfg"], "create", "/run/not-there.cfg", host="hostA")


def test_name_already_taken(cluster, config, guest):
    refused(cluster, EXISTS, [guest], "create", config("again", f'name = "{guest}"\nmemory = 64\nkernel = "/x"\n'), host="hostA")


def test_policies_and_plans_are_checked(cluster, guest):
    refused(cluster, NO_SUCH, ["nosuch"], "ha", "set", "nosuch", "--priority", "1")
    refused(cluster, NO_SUCH, ["hostZ"], "whatif", "fail", "hostZ")
    refused(cluster, USAGE, ["--priority", "256", "255"], "ha", "set", guest, "--priority", "256")
    refused(cluster, USAGE, ["--ready", "port:10.0.0.5"], "ha", "set", guest, "--ready", "port:10.0.0.5")
    refused(cluster, USAGE, ["--for", "25h", "30m"], "ha", "disarm", "--for", "25h")
    refused(cluster, USAGE, ["fence-share", "101"], "cluster", "set", "fence-share=101")
    refused(cluster, USAGE, ["colour", "fence-share"], "cluster", "set", "colour=red")


def test_hosts_are_not_switched_off_by_mistake(cluster, guest):
    refused(cluster, NEEDS_YES, ["hostB", "--yes"], "fence", "run", "hostB")
    refused(cluster, NEEDS_YES, ["hostB", "--yes"], "fence", "test", "hostB", "--really")
    refused(cluster, NEEDS_YES, ["hostB", "--yes"], "fence", "confirm", "hostB")
    refused(cluster, CONSTRAINT, ["hostA", guest, "migrate"], "fence", "test", "hostA", "--really", "--yes", host="hostB")
    refused(cluster, CONSTRAINT, ["hostB", "another host"], "fence", "test", "hostB", "--really", "--yes", host="hostB")
    refused(cluster, CONSTRAINT, ["hostB", "another host"], "fence", "run", "hostB", "--yes", host="hostB")
    refused(cluster, CONSTRAINT, ["hostB", "watchdog", "host.yaml"], "fence", "set", "hostB", "watchdog")
    assert {cluster.host(name)["state"] for name in cluster.lab.hosts} == {"online"}


def test_missing_kernel_is_named(cluster, config):
    path = config("nokernel", 'name = "nokernel"\nmemory = 64\nkernel = "/boot/no-such-kernel"\n')
    done = cluster.ctl("create", path, "--host", "hostB", host="hostA", check=False)
    assert done.returncode != 0 and "/boot/no-such-kernel" in done.stderr, done.stderr
    cluster.ctl("undefine", "nokernel", check=False)


def test_disk_that_is_not_there_is_named(cluster, config):
    kernel, _ = cluster.lab.guest_files()
    text = f'name = "nodisk"\nmemory = 64\nkernel = "{kernel}"\ndisk = ["vms/not-made,raw,xvda,rw"]\n'
    refused(cluster, NO_SUCH, ["not-made"], "create", config("nodisk", text), host="hostA")


def test_memory_that_no_host_has(cluster, config):
    kernel, _ = cluster.lab.guest_files()
    text = f'name = "huge"\nmemory = 9000000\nkernel = "{kernel}"\n'
    refused(cluster, CONSTRAINT, ["hostA", "hostB", "hostC"], "create", config("huge", text), host="hostA")
    assert cluster.domain("huge") is None


def test_destination_is_the_source(cluster, guest):
    refused(cluster, CONSTRAINT, [guest, "hostA"], "migrate", guest, "hostA")


def test_volume_in_use_is_not_deleted(cluster, guest):
    refused(cluster, CONSTRAINT, [guest], "vol", "delete", f"vms/{guest}")


def test_second_writer_is_refused_by_name(cluster, config, guest):
    kernel, _ = cluster.lab.guest_files()
    text = f'name = "second"\nmemory = 64\nkernel = "{kernel}"\ndisk = ["vms/{guest},raw,xvda,rw"]\n'
    refused(cluster, CONSTRAINT, [guest], "create", config("second", text), host="hostA")


def test_guest_is_untouched_by_all_that(cluster, guest):
    """Runs last in this file: the domain that every refusal above was about is still the same boot."""
    assert cluster.domain(guest)["state"] == "running"
    assert not cluster.lab.observer.faults(cluster.guests[guest])
    boots = {tick.boot for tick in cluster.lab.observer.ticks(cluster.guests[guest])}
    assert len(boots) == 1


def test_clusterd_not_running_says_so(cluster):
    cluster.lab.service("hostC", "stop", "clusterd")
    try:
        refused(cluster, UNAVAILABLE, ["clusterd"], "list", host="hostC")
    finally:
        cluster.lab.service("hostC", "start", "clusterd")
        cluster.wait_online("hostC")


@pytest.mark.parametrize("socket", ["/run/gantry/ctl.sock", "/run/gantry/agent.sock"])
@pytest.mark.parametrize("name,data", [
    ("garbage", b"GET / HTTP/1.1\r\n\r\n" * 100),
    ("oversized", b"Gy\x01\x01\xff\xff\xff\xff" + b"x" * 4096),
    ("truncated", b"Gy\x01\x01\x00\x00\x01\x00" + b"x" * 10),
    ("other version", b"Gy\x63\x01\x00\x00\x00\x04abcd"),
    ("empty message", b"Gy\x01\x01\x00\x00\x00\x00"),
])
def test_bad_frame_hurts_nobody_else(cluster, socket, name, data):
    talk = ("import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(3)\ns.connect(sys.argv[1])\n"
            "s.sendall(sys.stdin.buffer.read())\ns.shutdown(socket.SHUT_WR)\n"
            "try:\n  print(s.recv(4096))\nexcept OSError as e:\n  print(e)\n")
    before = {s["name"]: s for s in cluster.lab.services("hostA").values()}
    done = subprocess.run(cluster.lab.enter_argv("hostA", ["/usr/bin/python3", "-c", talk, socket]), input=data,
                          capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr
    if name == "other version":
        assert b"protocol" in done.stdout, done.stdout
    after = {s["name"]: s for s in cluster.lab.services("hostA").values()}
    assert [before[n]["pid"] for n in ("clusterd", "gantry-agent")] == [after[n]["pid"] for n in ("clusterd", "gantry-agent")]
    cluster.ctl("list", host="hostA")


def test_peer_that_stops_reading_hurts_nobody_else(cluster):
    """Asks for the model again and again and never reads an answer."""
    talk = ("import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(2)\ns.connect('/run/gantry/ctl.sock')\n"
            "m=b'\\x08\\x01\\x62\\x02\\x08\\x01'\nf=b'Gy\\x01\\x01'+len(m).to_bytes(4,'big')+m\n"
            "try:\n  for i in range(20000): s.sendall(f*50)\nexcept OSError as e:\n  print('dropped', e)\n")
    hog = subprocess.Popen(cluster.lab.enter_argv("hostA", ["/usr/bin/python3", "-c", talk]), stdout=subprocess.PIPE)
    try:
        for _ in range(5):
            cluster.ctl("list", host="hostA", timeout=20)
        out, _ = hog.communicate(timeout=60)
        assert b"dropped" in out
    finally:
        hog.kill()
        hog.wait()
