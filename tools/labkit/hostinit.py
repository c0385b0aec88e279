"""PID 1 of a lab host: builds the host's namespaces and is its service manager.

Started by the supervisor as `python3 -m labkit.hostinit CONFIG`, with the listening control socket and two
pipes as inherited descriptors (CONFIG names them). The process that is started stays outside as the host's
mains lead: it ends when PID 1 has ended, which is only when no process of the host is left.

Control protocol: one JSON object per line and connection, {"action": ..., "service": ...};
the answer is {"ok": true, ...} or {"ok": false, "error": TEXT}.

As systemd does for units with WatchdogSec, it ends a service that has said "WATCHDOG=1" by NOTIFY_SOCKET and then falls silent.
"""

import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from . import linux
from .layout import CLOCK_FILE, DURABLE, HOST_BIN, HOST_PATH, NOTIFY_SOCKET, SYSTEM_PATH, WATCHDOG_FIFO

RESTART_DELAY_S = 1.0
STOP_TIMEOUT_S = 10.0
CONDITION_POLL_S = 0.1
REQUEST_MAX = 4096
REQUEST_TIMEOUT_S = 2.0
# Ahead of all else, but not at real-time priority: corosyncs of a dozen hosts on two cores would starve each other and the rest.
NOT_REALTIME = ["/usr/bin/nice", "-n", "-15", "/usr/bin/setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]
CLUSTERD_WATCHDOG_S = 10.0  # as in the units
AGENT_WATCHDOG_S = 7.0
LATE_S = 1.0  # the init itself stood still (a frozen host): silence in that time proves nothing


class Service:
    """One daemon that is kept running while it is wanted and its condition file exists."""

    def __init__(self, name, argv, condition, log, watchdog_s=0.0):
        self.name = name
        self.argv = argv
        self.condition = condition
        self.log = log
        self.watchdog_s = watchdog_s  # 0: not watched
        self.silent_at = None  # when its silence becomes too long; None until it has spoken
        self.hangs = 0
        self.wanted = True
        self.pid = 0
        self.starts = 0
        self.last_exit = None
        self.not_before = 0.0
        self.kill_at = None
        self.start_after_stop = False
        self.waiting = []

    def missing(self):
        """What keeps the service from starting, or None."""
        for path in (self.condition, self.argv[0]):
            if not os.path.exists(path):
                return path
        return None

    def start(self, environment):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        if self.watchdog_s:
            environment = {**environment, "NOTIFY_SOCKET": NOTIFY_SOCKET,
                           "WATCHDOG_USEC": str(int(self.watchdog_s * 1e6))}
        files = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                 (os.POSIX_SPAWN_OPEN, 1, self.log, flags, 0o644),
                 (os.POSIX_SPAWN_DUP2, 1, 2)]
        self.pid = os.posix_spawn(self.argv[0], self.argv, environment, file_actions=files, setsid=True,
                                  setsigmask=[], setsigdef=[signal.SIGPIPE, signal.SIGINT])
        self.starts += 1

    def describe(self):
        return {"name": self.name, "pid": self.pid, "wanted": self.wanted, "starts": self.starts,
                "last_exit": self.last_exit, "missing": self.missing(), "hangs": self.hangs}


class Init:
    """The main loop: children, control connections, restarts. Nothing in it blocks for long."""

    def __init__(self, config, listener):
        self.environment = config["environment"]
        self.clock_library = config["clock_library"]
        self.listener = listener
        self.notices = notify_socket()
        log = "/var/log/gantry"
        self.services = {service.name: service for service in (
            Service("corosync", [*NOT_REALTIME, "/usr/sbin/corosync", "-f"], "/etc/corosync/corosync.conf", f"{log}/corosync.log"),
            Service("gantry-agent", [f"{HOST_BIN}/gantry-agent"], "/etc/gantry/host.yaml", f"{log}/gantry-agent.log",
                    AGENT_WATCHDOG_S),
            Service("clusterd", [f"{HOST_BIN}/clusterd"], "/etc/gantry/host.yaml", f"{log}/clusterd.log",
                    CLUSTERD_WATCHDOG_S),
        )}

    def run(self):
        wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(wake, selectors.EVENT_READ)
        selector.register(self.listener, selectors.EVENT_READ)
        selector.register(self.notices, selectors.EVENT_READ)
        looked = time.monotonic()
        while True:
            for key, _ in selector.select(CONDITION_POLL_S):
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj is self.notices:
                    self.hear()
                else:
                    os.read(wake, 4096)
            self.reap()
            now = time.monotonic()
            self.watch(now - looked)
            looked = now
            self.tend()

    def hear(self):
        """One notice of a service; the kernel says of which process it is."""
        text, sender = receive_notice(self.notices)
        for service in self.services.values():
            if service.pid and service.pid == sender and service.watchdog_s and ("WATCHDOG=1" in text or "READY=1" in text):
                service.silent_at = time.monotonic() + service.watchdog_s

    def watch(self, passed_s):
        """End what has been silent for too long, by SIGABRT as systemd does; `tend` kills what survives it."""
        now = time.monotonic()
        for service in self.services.values():
            if service.silent_at is None:
                continue
            if passed_s > LATE_S:
                service.silent_at += passed_s
            if now >= service.silent_at:
                service.silent_at = None
                service.hangs += 1
                service.kill_at = now + STOP_TIMEOUT_S
                os.kill(service.pid, signal.SIGABRT)
                os.kill(service.pid, signal.SIGCONT)

    def reap(self):
        """Collect every dead child: services, and orphans such as the QEMUs of a restarted agent."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for service in self.services.values():
                if service.pid == pid:
                    self.ended(service, os.waitstatus_to_exitcode(status))

    def ended(self, service, code):
        service.pid = 0
        service.last_exit = code
        service.kill_at = service.silent_at = None
        service.not_before = time.monotonic() + RESTART_DELAY_S
        if service.start_after_stop:
            service.start_after_stop = False
            service.wanted = True
            service.not_before = 0.0
            self.start_if_possible(service)
        for connection in service.waiting:
            answer(connection, {"ok": True, **service.describe()})
        service.waiting.clear()

    def tend(self):
        now = time.monotonic()
        for service in self.services.values():
            if service.kill_at is not None and now >= service.kill_at:
                service.kill_at = None
                os.kill(service.pid, signal.SIGKILL)
            if service.wanted and not service.pid and now >= service.not_before:
                self.start_if_possible(service)

    def start_if_possible(self, service):
        if service.missing():
            return
        try:
            service.start(self.environment)
        except OSError as error:
            service.last_exit = str(error)
            service.not_before = time.monotonic() + RESTART_DELAY_S

    def accept(self):
        connection, _ = self.listener.accept()
        connection.settimeout(REQUEST_TIMEOUT_S)
        try:
            request = json.loads(connection.makefile("rb").readline(REQUEST_MAX))
            reply = self.act(request, connection)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reply = {"ok": False, "error": f"bad request: {error!r}"}
        if reply is not None:
            answer(connection, reply)

    def act(self, request, connection):
        """Do one request; None means that the answer comes when the service has ended."""
        action = request["action"]
        if action == "status":
            return {"ok": True, "services": [service.describe() for service in self.services.values()]}
        if action == "clock":
            return self.set_clock(request["seconds"])
        name = {"agent": "gantry-agent"}.get(request["service"], request["service"])
        service = self.services.get(name)
        if service is None:
            return {"ok": False, "error": f"no service {name!r}; there are: {', '.join(self.services)}"}
        if action == "start":
            service.wanted = True
            service.not_before = 0.0
            if not service.pid:
                self.start_if_possible(service)
        elif action in ("stop", "restart"):
            return self.stop(service, action == "restart", connection)
        elif action in ("kill", "pause", "cont"):
            return self.signal(service, action, connection)
        else:
            return {"ok": False, "error": f"no action {action!r}; use start, stop, restart, kill, pause or cont"}
        return {"ok": True, **service.describe()}

    def set_clock(self, seconds):
        """Shift the wall clock of all that is started from the first call on, and of what was started so before."""
        with open(CLOCK_FILE, "r+b" if os.path.exists(CLOCK_FILE) else "w+b") as clock:  # in place: it is mapped
            clock.write(struct.pack("=q", seconds))
        self.environment = {**self.environment, "LD_PRELOAD": self.clock_library, "LAB_CLOCK": CLOCK_FILE}
        return {"ok": True}

    def stop(self, service, restart, connection):
        if not service.pid:
            service.wanted = restart
            if restart:
                self.start_if_possible(service)
            return {"ok": True, **service.describe()}
        service.wanted = False
        service.start_after_stop = restart
        service.kill_at = time.monotonic() + STOP_TIMEOUT_S
        service.waiting.append(connection)
        os.kill(service.pid, signal.SIGTERM)
        os.kill(service.pid, signal.SIGCONT)
        return None

    def signal(self, service, action, connection):
        if not service.pid:
            return {"ok": False, "error": f"{service.name} is not running"}
        numbers = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "cont": signal.SIGCONT}
        os.kill(service.pid, numbers[action])
        if action == "kill":
            service.waiting.append(connection)
            return None
        return {"ok": True, **service.describe()}


def notify_socket():
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    notices.bind(NOTIFY_SOCKET)
    return notices


def receive_notice(notices):
    """(text, pid of the sender)"""
    data, ancillary, _, _ = notices.recvmsg(REQUEST_MAX, socket.CMSG_SPACE(struct.calcsize("3i")))
    sender = next((struct.unpack("3i", value[:12])[0] for level, kind, value in ancillary
                   if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)), 0)
    return data.decode(errors="replace"), sender


def answer(connection, reply):
    """Answer and hang up; a caller that has gone away is no concern of the host's."""
    try:
        connection.sendall(json.dumps(reply).encode() + b"\n")
    except OSError:
        pass
    connection.close()


def mount_host(config):
    """Give the host its own /proc, /sys, /run and disks. Sources are opened first: /run will cover them."""
    state = Path(config["state"])
    sources = {path: os.open(state / folder, os.O_PATH) for path, folder in DURABLE.items()}
    sources["/etc/hosts"] = os.open(state / "hosts", os.O_PATH)
    linux.make_mounts_private()
    linux.mount_proc()
    linux.mount_sysfs()
    for path, source in sources.items():
        linux.bind(source, path)
        os.close(source)
    linux.mount_tmpfs("/dev/shm", 0o1777)
    linux.mount_tmpfs("/run", 0o755)
    os.makedirs(HOST_BIN)
    for folder, mode in (("/run/lock", 0o1777), ("/run/gantry", 0o755), ("/run/corosync", 0o755)):
        os.mkdir(folder)
        os.chmod(folder, mode)
    for name, target in config["bin"].items():
        os.symlink(target, f"{HOST_BIN}/{name}")
    os.mkfifo(WATCHDOG_FIFO, 0o600)
    # Kept open and never read here: a feeder can open it at any moment. The supervisor reads it.
    os.open(WATCHDOG_FIFO, os.O_RDONLY | os.O_NONBLOCK)


def raise_network(address):
    lines = ["link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up", "link set eth1 up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True,
                   env={"PATH": SYSTEM_PATH})


def become_host(config):
    linux.die_with_parent(signal.SIGKILL)
    os.read(config["go_fd"], 1)  # the supervisor plugs the cables in between
    os.close(config["go_fd"])
    socket.sethostname(config["name"])
    mount_host(config)
    os.chdir("/")
    raise_network(config["address"])
    os.environ.clear()
    os.environ["PATH"] = HOST_PATH
    listener = socket.socket(fileno=config["control_fd"])
    os.set_inheritable(listener.fileno(), False)
    os.write(config["report_fd"], b"up\n")
    os.close(config["report_fd"])
    Init(config, listener).run()


def main():
    config = json.loads(Path(sys.argv[1]).read_text())
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWUTS
                  | linux.CLONE_NEWIPC)
    pid = os.fork()
    if pid == 0:
        become_host(config)
        os._exit(1)
    os.write(config["report_fd"], f"{pid}\n".encode())
    for name in ("report_fd", "go_fd", "control_fd"):
        os.close(config[name])
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
