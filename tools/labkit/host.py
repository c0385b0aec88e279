"""One host as the supervisor sees it: its power, its processes, its disks."""

import asyncio
import os
import signal
import socket

from . import linux
from .hardware_watchdog import HardwareWatchdog
from .hub import run
from .layout import (DURABLE, HUB_ADDRESS, PYTHON, SYSTEM_PATH, TOOLS, LabError, host_address, host_names,
                     service_environment, write_json)

BOOT_TIMEOUT_S = 20


class Host:
    """States: off (process is None), on. Every change of power happens under `lock`."""

    def __init__(self, name, state, build, outer_proc):
        self.name = name
        self.state = state / "hosts" / name
        self.build = build
        self.outer_proc = outer_proc
        self.lock = asyncio.Lock()
        self.process = None
        self.pid = 0
        self.pidfd = -1
        self.outer_pid = 0
        self.frozen = False
        self.cuts = set()
        self.boots = 0
        self.watchdog = None

    def powered(self):
        return self.process is not None

    def describe(self):
        return {"name": self.name, "power": "on" if self.powered() else "off", "address": host_address(self.name),
                "pid": self.outer_pid, "frozen": self.frozen, "cuts": sorted(self.cuts), "boots": self.boots,
                "watchdog": "armed" if self.watchdog and self.watchdog.fires_at else "off"}

    def prepare(self, count):
        for folder in DURABLE.values():
            (self.state / folder).mkdir(parents=True, exist_ok=True)
        names = [f"{host_address(name)} {name}" for name in host_names(count)]
        (self.state / "hosts").write_text("\n".join(
            ["127.0.0.1 localhost", *names, f"{HUB_ADDRESS} hub store", ""]))

    async def boot(self, network, ended, reset):
        """Switch on; `ended(host)` is awaited when, later, the last process of the host is gone; `reset(host)` when
        its hardware watchdog has fired."""
        report_read, report_write = os.pipe()
        go_read, go_write = os.pipe()
        with self.listen() as control, open(self.state / "init.log", "ab") as log:
            config = {"name": self.name, "address": host_address(self.name), "state": str(self.state),
                      "report_fd": report_write, "go_fd": go_read, "control_fd": control.fileno(),
                      "bin": self.programs(), "environment": service_environment(),
                      "clock_library": str(self.build / "tests" / "lab" / "libshift-clock.so")}
            write_json(self.state / "boot.json", config)
            self.process = await asyncio.create_subprocess_exec(
                PYTHON, "-s", "-m", "labkit.hostinit", str(self.state / "boot.json"), stdin=asyncio.subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, pass_fds=(report_write, go_read, control.fileno()),
                env={"PATH": SYSTEM_PATH, "PYTHONPATH": str(TOOLS), "LANG": "C.UTF-8"})
        os.close(report_write)
        os.close(go_read)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(report_read, "rb", 0))
        try:
            await asyncio.wait_for(self.finish_boot(network, reader, go_write), BOOT_TIMEOUT_S)
        except (LabError, OSError, asyncio.TimeoutError) as error:
            await self.abandon_boot()
            raise LabError(f"{self.name} did not boot ({error or 'too slow'}); see {self.state / 'init.log'}") from error
        finally:
            os.close(go_write)
        self.boots += 1
        self.watchdog = HardwareWatchdog(self.pid, self.state / "etc-gantry" / "host.yaml")
        self.watchdog.start(lambda: reset(self))
        asyncio.create_task(self.watch(ended))

    async def finish_boot(self, network, reader, go_write):
        first = await reader.readline()
        if not first:
            raise LabError("its init ended at once")
        self.pid = int(first)
        self.pidfd = os.pidfd_open(self.pid)
        await network.unplug(self.name)  # the last boot's cables, if the kernel still has them
        await network.plug(self.name, self.pid)
        os.write(go_write, b"g")
        if await reader.readline() != b"up\n":
            raise LabError("its init ended while it set the host up")
        self.outer_pid = self.find_outer_pid()
        write_json(self.state / "pid", {"pid": self.outer_pid, "start": linux.process_start_time(self.pid)})

    async def abandon_boot(self):
        if self.pidfd >= 0:
            self.signal_init(signal.SIGKILL)
        else:
            self.process.kill()
        await self.process.wait()
        self.clear()

    def listen(self):
        """The init's control socket lives on the state folder's side, so that it is reached from outside."""
        path = self.state / "init.sock"
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(32)
        return listener

    def programs(self):
        """Links of the host's own bin folder; a program that is not built yet dangles until it is."""
        folders = {"clusterd": ("clusterd/daemon", "clusterd"), "gantry-agent": ("agent/daemon", "agent"),
                   "clusterctl": ("clusterctl",)}
        links = {"fence_lab": str(TOOLS / "labkit" / "fence_lab")}
        for program, places in folders.items():
            candidates = [self.build / place / program for place in places]
            links[program] = str(next((path for path in candidates if path.exists()), candidates[0]))
        return links

    def find_outer_pid(self):
        """The init's pid as the world outside the lab knows it, which is what nsenter needs there."""
        fdinfo = os.open(f"self/fdinfo/{self.pidfd}", os.O_RDONLY, dir_fd=self.outer_proc)
        with os.fdopen(fdinfo) as lines:
            for line in lines:
                if line.startswith("Pid:"):
                    return int(line.split()[1])
        raise LabError(f"no outer pid for {self.name}")

    def signal_init(self, signum):
        try:
            signal.pidfd_send_signal(self.pidfd, signum)
        except ProcessLookupError:
            pass

    async def watch(self, ended):
        await self.process.wait()
        self.clear()
        await ended(self)

    def clear(self):
        """The host is off: the mains lead's end means that the kernel has reaped all of it."""
        if self.watchdog:
            self.watchdog.stop()
            self.watchdog = None
        (self.state / "pid").unlink(missing_ok=True)
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.process = None
        self.pid = self.outer_pid = 0
        self.pidfd = -1
        self.frozen = False

    async def power_off(self):
        process = self.process
        self.signal_init(signal.SIGKILL)
        await process.wait()
        while self.process is process:  # until watch() has seen it too
            await asyncio.sleep(0.001)

    async def freeze(self):
        """Stop the init first, so that it restarts nothing; kill(-1) then reaches all others at once."""
        self.signal_init(signal.SIGSTOP)
        await self.signal_all(signal.SIGSTOP)
        self.frozen = True

    async def thaw(self):
        await self.signal_all(signal.SIGCONT)
        self.signal_init(signal.SIGCONT)
        self.frozen = False

    async def signal_all(self, signum):
        """kill(-1) inside: every process of the host but its init and the sender, with no gap to fork through."""
        try:
            await run(["nsenter", "-t", str(self.pid), "-p", "--", PYTHON, "-ISEc",
                       f"import os; os.kill(-1, {int(signum)})"])
        except LabError as error:
            if "ProcessLookupError" not in str(error):  # a host where only the init runs
                raise
