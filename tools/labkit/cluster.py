"""A Gantry cluster in a lab, set up and driven only by the commands that a user would type.

    with Lab("x", hosts=3) as lab:
        cluster = Cluster(lab)
        cluster.create_all()
        cluster.add_guest("web1", host="hostB")
        cluster.ctl("migrate", "web1", "hostC")
"""

import json
import os
import select
import subprocess
import time

from .layout import LabError, host_address

POOL = "vms"
STORE = "10.79.0.254"


def wait_until(what, condition, timeout, interval=0.1):
    """Polls until condition() is true and returns its value; LabError names what was waited for."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout} s in vain: {what}")
        time.sleep(interval)


class Cluster:
    def __init__(self, lab, say=lambda text: None):
        self.lab = lab
        self.say = say
        self.guests = {}          # name -> the guest's address

    # ---- commands

    def ctl(self, *arguments, host=None, check=True, timeout=90):
        """Runs clusterctl on a host (default: the first that is powered). CompletedProcess with text."""
        return self.lab.exec(host or self.any_host(), ["clusterctl", *map(str, arguments)], check=check, timeout=timeout)

    def json(self, *arguments, host=None):
        return json.loads(self.ctl(*arguments, "-o", "json", host=host).stdout)

    def start_ctl(self, *arguments, host=None):
        """The same in the background: Popen with pipes of text."""
        return self.lab.spawn(host or self.any_host(), ["clusterctl", *map(str, arguments)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)

    def any_host(self):
        for host in self.lab.status()["hosts"]:
            if host["power"] == "on" and not host["frozen"]:
                return host["name"]
        raise LabError("no host of the lab is powered")

    # ---- set-up

    def create_all(self, pool=True, fence=True):
        """init on the first host, join for the others, fence devices and the NFS pool."""
        self.init()
        for host in self.lab.hosts[1:]:
            self.join(host)
        if fence:
            for host in self.lab.hosts:
                self.ctl("fence", "set", host, "fence_lab", f"ip={STORE}", "ipport=6230", f"plug={host}")
        if pool:
            self.ctl("pool", "add", POOL, f"nfs://{STORE}/pool")

    def init(self):
        first = self.lab.hosts[0]
        self.say(f"clusterctl cluster init, on {first}")
        self.ctl("cluster", "init", "demo", "--address", host_address(first), "--host-name", first, "--uplink", "eth1", "--accel", "tcg",
                 "--token", self.lab.token, host=first)
        self.wait_online(first)

    def join(self, host):
        first = self.lab.hosts[0]
        token = self.ctl("cluster", "token", host=first).stdout.split()[-1]
        self.say(f"clusterctl cluster join, on {host}")
        self.ctl("cluster", "join", host_address(first), "--token", token, "--address", host_address(host), "--host-name", host,
                 "--uplink", "eth1", "--accel", "tcg", host=host)
        self.wait_online(host)

    # ---- looking

    def host(self, name, seen_from=None):
        for host in self.json("host", "list", host=seen_from):
            if host["name"] == name:
                return host
        return None

    def domain(self, name, seen_from=None):
        for domain in self.json("list", host=seen_from):
            if domain["name"] == name:
                return domain
        return None

    def events(self, kind=None, after_ms=0, host=None):
        lines = self.ctl("events", "-o", "json", host=host).stdout.splitlines()   # one JSON object a line: it can be followed
        return [event for event in map(json.loads, lines)
                if int(event["time_ms"]) >= after_ms and kind in (None, event["kind"])]

    def wait_online(self, name, timeout=40):
        def online():
            if not self.is_quorate(name):
                return False      # only just booting: what it says is from before
            host = self.host(name, name)
            return host and host["state"] == "online" and host.get("agent_connected")
        wait_until(f"{name} is online with its agent", online, timeout)

    def wait_quorate(self, timeout=60):
        """Every powered host is in the quorum and in step."""
        for host in self.lab.status()["hosts"]:
            if host["power"] == "on":
                wait_until(f"{host['name']} is in the quorum", lambda: self.is_quorate(host["name"]), timeout)

    def is_quorate(self, host):
        done = self.ctl("cluster", "status", "-o", "json", host=host, check=False)
        return done.returncode == 0 and json.loads(done.stdout).get("quorate", False)

    def wait_state(self, name, state, timeout=60, host=None):
        def there():
            domain = self.domain(name)
            return domain if domain and domain["state"] == state and host in (None, domain.get("host")) else None
        return wait_until(f"{name} is {state}" + (f" on {host}" if host else ""), there, timeout)

    # ---- guests

    def guest_config(self, name, address, memory=160, mb=32, rate=4, disk=True, extra=""):
        """An xl.cfg for the lab's Linux guest, as a file on the lab's store of shared files; returns its text."""
        kernel, initrd = self.lab.guest_files()
        lines = [f'name = "{name}"', 'type = "pv"', f"memory = {memory}", "vcpus = 1",
                 f'kernel = "{kernel}"', f'ramdisk = "{initrd}"',
                 f'extra = "console=ttyS0 quiet gw.ip={address} gw.mb={mb} gw.rate={rate} {extra}"',
                 "vif = ['']"]
        if disk:
            lines.append(f"disk = ['{POOL}/{name},raw,xvda,rw']")
        return "\n".join(lines) + "\n"

    def put_file(self, host, path, text):
        self.lab.exec(host, ["tee", path], input=text)

    def add_guest(self, name, host=None, address=None, wait=True, volume_mib=64, at=None, **config):
        """vol create and create of a lab guest; waits for its first tick."""
        address = address or f"10.80.0.{51 + len(self.guests)}"
        self.guests[name] = address
        on = at or self.any_host()
        if config.get("disk", True):
            self.ctl("vol", "create", f"{POOL}/{name}", f"{volume_mib}M", "--format", "raw", host=on)
        self.put_file(on, f"/run/{name}.cfg", self.guest_config(name, address, **config))
        started = time.monotonic()
        self.ctl("create", f"/run/{name}.cfg", *(["--host", host] if host else []), host=on)
        if wait and not self.lab.observer.wait_tick(address, since=started, timeout=60):
            raise LabError(f"guest {name} was created but sent no tick within 60 s")
        return address

    def console(self, name, command, expect, timeout=30, host=None):
        """Types a line at the guest's serial console by `clusterctl console`; returns the line that holds `expect`."""
        process = self.lab.spawn(host or self.any_host(), ["clusterctl", "console", name], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return console_talk(process, command, expect, timeout)


def console_talk(process, command, expect, timeout):
    """Types command (again every 5 s) until a whole line with `expect` comes that is not its echo."""
    seen, typed = b"", 0.0
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            if time.monotonic() - typed > 5:
                seen, typed = b"", time.monotonic()
                process.stdin.write(command.encode() + b"\n")
                process.stdin.flush()
            if select.select([process.stdout], [], [], 0.2)[0]:
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    break
                seen += data
            for line in seen.decode(errors="replace").split("\n")[:-1]:
                if expect in line:
                    return line.strip()
    finally:
        process.kill()
        process.wait()
    raise LabError(f"console: no line with '{expect}' after '{command}'; last seen: {seen[-400:]!r}")
