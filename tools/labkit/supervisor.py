"""The lab's supervisor: PID 1 of the lab's own pid namespace, inside the hub's net and mount namespace.

Killing it takes everything with it. Started by `Lab.up` as `python3 -m labkit.supervisor CONFIG` with the state
folder (locked), a report pipe and perhaps a pidfd of the parent to follow as inherited descriptors.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from . import linux
from .host import Host
from .hub import Network, Store, start_observer
from .layout import DURABLE, LabError, host_names, write_json
from .power import PowerController

REQUEST_MAX = 4096


class Supervisor:
    """The lab's parts, and the commands that come in by the control socket."""

    def __init__(self, config, outer_proc):
        self.state = Path(config["state"])
        self.build = Path(config["build"])
        self.network = Network()
        self.store = Store(self.state)
        self.observer = None
        self.hosts = {name: Host(name, self.state, self.build, outer_proc) for name in host_names(config["hosts"])}
        self.power = PowerController(self.hosts, self.power_on, self.power_off, self.log)

    def log(self, event, **fields):
        record = {"time": time.time(), "monotonic": time.monotonic(), "event": event, **fields}
        with open(self.state / "events.jsonl", "a") as events:
            events.write(json.dumps(record) + "\n")

    async def start(self):
        await self.network.start()
        await self.power.start()
        self.store.prepare()
        await self.store.start()
        self.observer = await start_observer(self.state, self.build)
        for host in self.hosts.values():
            host.prepare(len(self.hosts))
        await asyncio.gather(*(self.power_on(host) for host in self.hosts.values()))
        await asyncio.start_unix_server(self.serve, str(self.state / "control.sock"), limit=REQUEST_MAX)
        self.log("up", hosts=list(self.hosts))

    async def power_on(self, host):
        async with host.lock:
            if not host.powered():
                await host.boot(self.network, self.host_ended, self.watchdog_fired)
                await self.network.apply_cuts(self.powered_hosts)
                self.log("powered-on", host=host.name)

    async def power_off(self, host):
        async with host.lock:
            if host.powered():
                await host.power_off()

    async def host_ended(self, host):
        self.log("powered-off", host=host.name)

    async def watchdog_fired(self, host):
        self.log("watchdog-fired", host=host.name)
        # In a task of its own: the watchdog's ends with the host.
        asyncio.create_task(self.power_off(host))

    def powered_hosts(self):
        return [host for host in self.hosts.values() if host.outer_pid]

    async def serve(self, reader, writer):
        try:
            request = json.loads(await reader.readline())
            reply = {"ok": True, **(await self.command(request) or {})}
        except LabError as error:
            reply = {"ok": False, "error": str(error)}
        except (ValueError, KeyError, TypeError) as error:
            reply = {"ok": False, "error": f"bad request: {error!r}"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def command(self, request):
        verb = request["command"]
        if verb == "status":
            return self.status()
        self.log("command", **request)
        if verb == "power":
            return {"reply": await self.power.command(request["line"])}
        if verb == "store":
            return await self.command_store(request["action"])
        if verb == "heal" and request.get("host") is None:
            return await self.command_heal(self.hosts.values())
        host = self.hosts.get(request["host"])
        if host is None:
            raise LabError(f"no host {request['host']!r}; there are: {', '.join(self.hosts)}")
        if verb == "kill":
            return await self.power_off(host)
        if verb == "on":
            return await self.power_on(host)
        if verb == "cut":
            host.cuts.update(request["directions"])
            return await self.network.apply_cuts(self.powered_hosts)
        if verb == "heal":
            return await self.command_heal([host])
        if verb in ("freeze", "thaw"):
            return await self.command_freeze(host, verb)
        raise LabError(f"no command {verb!r}")

    async def command_heal(self, hosts):
        for host in hosts:
            host.cuts.clear()
        await self.network.apply_cuts(self.powered_hosts)

    async def command_freeze(self, host, verb):
        async with host.lock:
            if not host.powered():
                raise LabError(f"{host.name} is off: only a running host can {verb}")
            if verb == "freeze":
                await host.freeze()
            else:
                await host.thaw()

    async def command_store(self, action):
        if action == "start":
            await self.store.start()
        elif action == "stop":
            await self.store.stop()
        elif action == "kill":
            await self.store.stop(signal.SIGKILL)
        else:
            raise LabError(f"no store action {action!r}; use start, stop or kill")

    def status(self):
        observer = "absent" if self.observer is None else "on" if self.observer.returncode is None else "dead"
        return {"hosts": [host.describe() for host in self.hosts.values()],
                "store": "on" if self.store.running() else "off", "observer": observer,
                "power": {"delay": self.power.delay_s, "fail": self.power.failing, "lie": self.power.lying}}


def enter_namespaces(config):
    """Become PID 1 of a new lab. The process that the caller started ends; its child goes on."""
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC)
    pid = os.fork()
    if pid:
        write_json(Path(config["state"]) / "supervisor.json",
                   {"pid": pid, "start": linux.process_start_time(pid)})
        os._exit(0)


def mount_hub(config):
    """Private /run and NFS state; the state folder keeps its path. Returns the outer /proc, for outer pids."""
    state = Path(config["state"])
    nfs_state = state / "nfs" / "lib"
    (nfs_state / "ganesha").mkdir(parents=True, exist_ok=True)
    for path in DURABLE:
        os.makedirs(path, exist_ok=True)
    os.makedirs("/var/lib/nfs", exist_ok=True)
    outer_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    parent_fd = os.open(state.parent, os.O_RDONLY | os.O_DIRECTORY)
    state_fd = os.open(state, os.O_PATH)
    nfs_fd = os.open(nfs_state, os.O_PATH)
    linux.make_mounts_private()
    linux.mount_proc()
    linux.bind(nfs_fd, "/var/lib/nfs")
    linux.mount_tmpfs("/run", 0o755)
    if state.is_relative_to("/run"):
        state.mkdir(parents=True)
        linux.bind(state_fd, state)
    for folder in ("rpcbind", "ganesha", "lock", "dbus"):
        os.makedirs(f"/run/{folder}", exist_ok=True)
    shutil.chown("/run/rpcbind", "_rpc")
    os.close(state_fd)
    os.close(nfs_fd)
    return outer_proc, parent_fd


def end_all(state, parent_fd):
    """The parent to follow is gone: kill everything of the lab, remove its folder, and end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    shutil.rmtree(state, ignore_errors=True)  # its mount point stays, below our own /run
    with contextlib.suppress(OSError):
        os.rmdir(state.name, dir_fd=parent_fd)
    os._exit(0)


async def main_loop(config, outer_proc, parent_fd):
    supervisor = Supervisor(config, outer_proc)
    if config["follow_fd"] >= 0:
        asyncio.get_running_loop().add_reader(config["follow_fd"], end_all, supervisor.state, parent_fd)
    try:
        await supervisor.start()
        report = "ok"
    except (LabError, OSError) as error:
        report = f"error {error}"
    os.write(config["report_fd"], report.encode())
    os.close(config["report_fd"])
    if report != "ok":
        return
    await asyncio.Event().wait()


def main():
    config = json.loads(sys.argv[1])
    for inherited in ("report_fd", "lock_fd", "follow_fd"):
        if config[inherited] >= 0:
            os.set_inheritable(config[inherited], False)
    enter_namespaces(config)
    try:
        outer_proc, parent_fd = mount_hub(config)
    except OSError as error:
        os.write(config["report_fd"], f"error {error}".encode())
        return
    os.chdir("/")
    asyncio.run(main_loop(config, outer_proc, parent_fd))


if __name__ == "__main__":
    main()
