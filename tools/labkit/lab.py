"""A lab as its user holds it: everything `tools/lab` can do, as Python.

    with Lab("failover", hosts=3, build="build") as lab:
        lab.exec("hostA", ["clusterctl", "list"])
        lab.kill("hostB")

A Lab object keeps no connection: several may name the same lab, from any process of the same machine.
Every method raises LabError with the reason if the lab refuses or is not up.
"""

import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from . import linux
from .layout import (DURABLE, HOSTS_MAX, PYTHON, SYSTEM_PATH, TOOLS, TREE, LabError, host_address, host_names,
                     service_environment, state_dir)
from .observer import Observer

UP_TIMEOUT_S = 60
DOWN_TIMEOUT_S = 60
LOCK_TIMEOUT_S = 10
COMMAND_TIMEOUT_S = 60
REPLY_MAX = 1 << 20

CUT_DIRECTIONS = {"both": ["both"], "in": ["in"], "out": ["out"], "guest": ["guest"], "all": ["both", "guest"]}

COROSYNC_CONF = """\
totem {{
    version: 2
    cluster_name: {name}
    transport: knet
    crypto_cipher: aes256
    crypto_hash: sha256
    token: {token}
    token_coefficient: 0
}}
quorum {{
    provider: corosync_votequorum
}}
system {{
    move_to_root_cgroup: no
    sched_rr: yes
}}
logging {{
    to_stderr: yes
    to_syslog: no
    timestamp: hires
}}
nodelist {{
{nodes}}}
"""

COROSYNC_NODE = """\
    node {{
        ring0_addr: {address}
        nodeid: {number}
        name: {name}
    }}
"""


class Lab:
    """One lab by its name. `hosts` and `build` matter only to `up`; a lab that is up knows its own."""

    def __init__(self, name="lab", hosts=3, build=None, token=1000, with_parent=None):
        self.name = name
        self.state = state_dir(name)
        self.hosts = host_names(hosts)
        self.build = Path(build or os.environ.get("GANTRY_BUILD") or TREE / "build").absolute()
        self.token = token
        self.with_parent = with_parent
        if self.is_up():
            known = json.loads((self.state / "lab.json").read_text())
            self.hosts, self.build, self.token = known["hosts"], Path(known["build"]), known["token"]
        self.observer = Observer(self.state / "observer.ticks")

    # -- the lab itself

    def up(self):
        """Start the lab and wait until every host has booted. Cleans what a dead lab of that name left."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root: it makes namespaces, bridges and mounts")
        if not 1 <= len(self.hosts) <= HOSTS_MAX:
            raise LabError(f"a lab has 1 to {HOSTS_MAX} hosts, not {len(self.hosts)}")
        lock = self._take_state()
        try:
            self._start_supervisor(lock)
        except BaseException:
            self._kill_supervisor()
            shutil.rmtree(self.state, ignore_errors=True)
            raise
        finally:
            os.close(lock)
        return self

    def down(self):
        """End the lab and remove its folder; nothing happens if there is none."""
        if not self.state.exists():
            return
        ended = self._kill_supervisor()
        deadline = time.monotonic() + (LOCK_TIMEOUT_S if ended else DOWN_TIMEOUT_S)
        while (lock := self._try_lock()) is None and self.state.exists():
            if time.monotonic() > deadline:
                if ended:  # seen once: all that was the lab is gone, and still the lock is not to be had
                    shutil.rmtree(self.state)
                    break
                raise LabError(f"lab {self.name}: its supervisor did not end; see {self.state}/supervisor.log")
            time.sleep(0.005)
        if lock is not None:
            shutil.rmtree(self.state)
            os.close(lock)
        with contextlib.suppress(OSError):
            self.state.parent.rmdir()

    def is_up(self):
        try:
            known = json.loads((self.state / "supervisor.json").read_text())
            return linux.process_start_time(known["pid"]) == known["start"]
        except (OSError, ValueError):
            return False

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    # -- hosts

    def exec(self, host, argv, check=True, timeout=60, input=None, text=True):
        """Run a command in a host to its end; CompletedProcess. With `check`, LabError quotes what it said."""
        process = self.spawn(host, argv, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text)
        try:
            output, errors = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()  # the command dies with its nsenter; a daemon it left may yet hold the pipes
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
            raise LabError(f"{host}: {' '.join(argv)} did not end within {timeout} s") from None
        if check and process.returncode != 0:
            raise LabError(f"{host}: {' '.join(argv)} ended with {process.returncode}: {errors or output}")
        return subprocess.CompletedProcess(argv, process.returncode, output, errors)

    def spawn(self, host, argv, **popen):
        """Start a command in a host; a Popen whose kill() takes the command with it."""
        return subprocess.Popen(self.enter_argv(host, argv), env=service_environment(), **popen)

    def spawn_in_hub(self, argv, **popen):
        """Start a command in the hub, for what all hosts reach (a quorum device, say); its kill() takes the command with it."""
        self._require_up()
        supervisor = json.loads((self.state / "supervisor.json").read_text())["pid"]
        return subprocess.Popen(["nsenter", "-t", str(supervisor), "-m", "-i", "-n", "-p", "--",
                                 "setpriv", "--pdeathsig", "KILL", "--", *argv], env=service_environment(), **popen)

    def enter_argv(self, host, argv):
        """The argv that runs `argv` in a host; raises LabError if the host is off."""
        try:
            init = json.loads((self.host_state(host) / "pid").read_text())
            if linux.process_start_time(init["pid"]) != init["start"]:
                raise ProcessLookupError
        except (OSError, ValueError):
            self._require_up()
            raise LabError(f"{host} is off") from None
        return ["nsenter", "-t", str(init["pid"]), "-m", "-u", "-i", "-n", "-p", "--",
                "setpriv", "--pdeathsig", "KILL", "--", *argv]

    def kill(self, host):
        """Power loss: returns when no process of the host is left. Its disks stay as they were."""
        self.command("kill", host=host)

    def on(self, host):
        self.command("on", host=host)

    def cut(self, host, direction="both"):
        """Cut the cluster cable: both, in (host hears nothing), out (host is not heard), guest, or all."""
        if direction not in CUT_DIRECTIONS:
            raise LabError(f"no direction {direction!r}; use {', '.join(CUT_DIRECTIONS)}")
        self.command("cut", host=host, directions=CUT_DIRECTIONS[direction])

    def heal(self, host=None):
        self.command("heal", host=host)

    def freeze(self, host):
        """SIGSTOP to every process of the host; its kernel still answers pings."""
        self.command("freeze", host=host)

    def thaw(self, host):
        argv = self.enter_argv(host, [])
        self.command("thaw", host=host)
        wake_entered(argv[2])

    def service(self, host, action, name=None):
        """start, stop, restart, kill, pause or cont a service, or status of all; the init's answer as a dict."""
        self._require_host(host)
        return self._ask(self.host_state(host) / "init.sock", {"action": action, "service": name}, host)

    def clock(self, host, seconds):
        """Set the wall clock of the host's daemons that many seconds off, until it boots again. Those that were started before the
        first call do not see it: call it with 0 and restart them, then it can be moved while they run."""
        self._require_host(host)
        self._ask(self.host_state(host) / "init.sock", {"action": "clock", "seconds": seconds}, host)

    def services(self, host):
        return {service["name"]: service for service in self.service(host, "status")["services"]}

    # -- the hub

    def store(self, action):
        """start, stop (orderly) or kill the NFS server."""
        self.command("store", action=action)

    def power(self, line):
        """One line to the power controller, past the network: `off hostB`, `delay 5`; its answer as text."""
        return self.command("power", line=line)["reply"]

    def status(self):
        return self.command("status")

    def events(self):
        """Everything that was done to the lab, in order: dicts with time, monotonic, event and more."""
        with open(self.state / "events.jsonl") as lines:
            return [json.loads(line) for line in lines]

    def command(self, command, **arguments):
        return self._ask(self.state / "control.sock", {"command": command, **arguments}, f"lab {self.name}")

    # -- files

    def host_state(self, host):
        self._require_host(host)
        return self.state / "hosts" / host

    def host_path(self, host, path):
        """Where a durable file of a host (below /etc/gantry, /var/lib/gantry, ...) really is, host on or off."""
        for prefix, folder in DURABLE.items():
            if path == prefix or path.startswith(prefix + "/"):
                return self.host_state(host) / folder / path[len(prefix) + 1:]
        raise LabError(f"{path} is not on a durable disk of the host; those are: {', '.join(DURABLE)}")

    def store_path(self, name=""):
        """Where a file of the shared store (nfs://10.79.0.254/pool/NAME) really is."""
        return self.state / "store" / name

    def guest_files(self):
        """(kernel, initramfs) of the lab's guest; both have the same path in every host."""
        files = tuple(self.build / "tests" / "lab" / f"guest.{kind}" for kind in ("vmlinuz", "initrd"))
        for path in files:
            if not path.exists():
                raise LabError(f"no lab guest in {self.build}: build it with `meson compile -C {self.build}`"
                               " (needs the packages linux-image-cloud-amd64 and busybox-static)")
        return files

    def write_corosync(self, hosts=None):
        """Give the hosts one key and one corosync.conf; their inits start corosync at once."""
        hosts = hosts or self.hosts
        key = secrets.token_bytes(256)
        nodes = "".join(COROSYNC_NODE.format(address=host_address(host), number=number, name=host)
                        for number, host in enumerate(self.hosts, 1) if host in hosts)
        conf = COROSYNC_CONF.format(name=self.name, token=self.token, nodes=nodes)
        for host in hosts:
            key_path = self.host_path(host, "/etc/corosync/authkey")
            key_path.write_bytes(key)
            key_path.chmod(0o400)
        for host in hosts:
            self.host_path(host, "/etc/corosync/corosync.conf").write_text(conf)

    # -- inside

    def _require_host(self, host):
        if host not in self.hosts:
            raise LabError(f"no host {host!r} in lab {self.name}; there are: {', '.join(self.hosts)}")

    def _require_up(self):
        if not self.is_up():
            raise LabError(f"lab {self.name} is not up; start it with: tools/lab --name {self.name} up")

    def _ask(self, path, request, whom):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
                control.settimeout(COMMAND_TIMEOUT_S)
                control.connect(str(path))
                control.sendall(json.dumps(request).encode() + b"\n")
                reply = json.loads(control.makefile("rb").readline(REPLY_MAX))
        except (OSError, ValueError) as error:
            self._require_up()
            reason = f"no answer within {COMMAND_TIMEOUT_S} s" if isinstance(error, TimeoutError) else error
            raise LabError(f"{whom}: {reason}") from None
        if not reply.pop("ok"):
            raise LabError(f"{whom}: {reply['error']}")
        return reply

    def _try_lock(self):
        """Lock the state folder: a descriptor, or None while a supervisor holds it (or it is being made)."""
        try:
            folder = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(folder).st_ino == os.stat(self.state).st_ino:
                return folder
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(folder)
        return None

    def _take_state(self):
        """An empty, locked state folder."""
        self.state.mkdir(parents=True, exist_ok=True)
        lock = self._try_lock()
        if lock is None:
            raise LabError(f"lab {self.name} is up already; end it with: tools/lab --name {self.name} down")
        for entry in self.state.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        return lock

    def _start_supervisor(self, lock):
        follow = os.pidfd_open(self.with_parent) if self.with_parent else -1
        report_read, report_write = os.pipe()
        config = {"state": str(self.state), "build": str(self.build), "hosts": len(self.hosts),
                  "report_fd": report_write, "lock_fd": lock, "follow_fd": follow}
        (self.state / "lab.json").write_text(json.dumps(
            {"name": self.name, "hosts": self.hosts, "build": str(self.build), "token": self.token}))
        kept = {key: value for key, value in service_environment().items() if key not in ("PATH", "TERM")}
        with open(self.state / "supervisor.log", "ab") as log:
            starter = subprocess.Popen(
                [PYTHON, "-s", "-m", "labkit.supervisor", json.dumps(config)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True, env={**kept, "PATH": SYSTEM_PATH, "PYTHONPATH": str(TOOLS)},
                pass_fds=[fd for fd in (report_write, lock, follow) if fd >= 0])
        os.close(report_write)
        if follow >= 0:
            os.close(follow)
        starter.wait()
        with os.fdopen(report_read, "rb", 0) as report:
            ready, _, _ = select.select([report], [], [], UP_TIMEOUT_S)
            said = report.read(65536).decode() if ready else f"error not up after {UP_TIMEOUT_S} s"
        if said != "ok":
            tail = (self.state / "supervisor.log").read_text(errors="replace")[-2000:]
            raise LabError(f"lab {self.name}: {said.removeprefix('error ') or 'its supervisor died'}\n{tail}".rstrip())

    def _kill_supervisor(self):
        """SIGKILL to the lab's PID 1, then wait until the kernel has taken everything down; True once it has."""
        try:
            known = json.loads((self.state / "supervisor.json").read_text())
            pidfd = os.pidfd_open(known["pid"])
        except (OSError, ValueError):
            return False
        try:
            if linux.process_start_time(known["pid"]) != known["start"]:
                return True
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return bool(select.select([pidfd], [], [], DOWN_TIMEOUT_S)[0])
        except OSError:
            return True  # it ended by itself in between
        finally:
            os.close(pidfd)


def wake_entered(pid):
    """Continue the nsenters of commands in a host that was thawed: each had stopped itself with its command."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().split(b"\0")[:3] == [b"nsenter", b"-t", pid.encode()]:
                os.kill(int(process.name), signal.SIGCONT)
