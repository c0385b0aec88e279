"""The load generator tests/bench/log_load.c at the hosts of a lab, from outside of them.

    load = LogLoad(lab)
    load.start("--clients", "64", "--seconds", "10", "--name", "x")
    figures = load.wait()
"""

import json
import subprocess

from .layout import LabError

CTL_SOCKET = "run/gantry/ctl.sock"


class LogLoad:
    """One run at a time. The sockets are given as links, so that they stay where they are while a host is switched off and on."""

    def __init__(self, lab, hosts=None):
        self.lab = lab
        self.hosts = hosts or lab.hosts
        self.program = lab.build / "tests" / "bench" / "log_load"
        self.folder = lab.state / "load"
        self.process = None
        self.folder.mkdir(exist_ok=True)
        self.link()

    def link(self):
        """Points the links at the hosts as they are now; to be called again when one has been switched on."""
        for host in self.lab.status()["hosts"]:
            if host["pid"]:
                fresh = self.folder / f"{host['name']}.new"
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(f"/proc/{host['pid']}/root/{CTL_SOCKET}")
                fresh.rename(self.folder / host["name"])

    def start(self, *options):
        sockets = [part for host in self.hosts for part in ("--socket", str(self.folder / host))]
        self.process = subprocess.Popen([str(self.program), *sockets, *map(str, options)], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)

    def wait(self, timeout=120):
        """Its figures. LabError if it failed or did not end."""
        try:
            output, errors = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"the load did not end within {timeout} s") from None
        if self.process.returncode != 0:
            raise LabError(f"the load failed: {errors or output}")
        return json.loads(output)

    def run(self, *options, timeout=120):
        self.start(*options)
        return self.wait(timeout)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
