"""One gantry-agent in a box of its own: private network, mounts and processes, no clusterd.

A Box is the host; a Poke is what stands in for clusterd: it sends goals and heartbeats through the agent_poke
program and keeps the reports. Everything in a box ends with its first process. Needs root.
"""
import atexit
import glob
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ("/etc/gantry", "/var/lib/gantry", "/var/log/gantry", "/run", "/dev/shm")
# The programs end without taking their memory apart: with a sanitized build that is no leak.
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")
CLUSTER = "5f0c3cde-1111-4222-8333-000000000001"

# Real-mode guest: a dot on COM1 at each timer tick, echoes what is typed; q powers off (ACPI of q35),
# r resets, p reports a panic.
BOOT_SECTOR = bytes.fromhex(
    "fb f4 bafd03 ec a801 7424 baf803 ec ee"
    "3c71 7507 ba0406 b80020 ef"
    "3c72 7506 baf90c b006 ee"
    "3c70 7506 ba0505 b001 ee"
    "baf803 b02e ee ebca".replace(" ", "")).ljust(510, b"\0") + b"\x55\xaa"


def build_folder():
    if "GANTRY_BUILD" in os.environ:
        return os.path.abspath(os.environ["GANTRY_BUILD"])
    found = [p for p in glob.glob(f"{ROOT}/build*") if os.path.exists(f"{p}/agent/daemon/gantry-agent")]
    return max(found, key=lambda p: os.path.getmtime(f"{p}/agent/daemon/gantry-agent"), default="")


BUILD = build_folder()
AGENT = os.environ.get("GANTRY_AGENT", f"{BUILD}/agent/daemon/gantry-agent")
POKE = f"{BUILD}/tests/lab/agent_poke"


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(x) for x in f.read().split()]
    except OSError:
        return []


def wait_until(what, test, timeout=10.0):
    end = time.monotonic() + timeout
    while True:
        got = test()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.02)


class Box:
    def __init__(self, name, address="10.78.0.1", shared=None):
        self.name, self.address = name, address
        self.folder = tempfile.mkdtemp(prefix=f"agentbox-{name}-")
        self.agent = None
        for path in FOLDERS:
            os.makedirs(path, exist_ok=True)
        init = ("import signal,ctypes\n"
                "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
                "ctypes.CDLL(None).prctl(1, 9)\n"
                "signal.pause()\n")
        self.outer = subprocess.Popen(["unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc",
                                       "/usr/bin/python3", "-c", init])
        self.init = wait_until("the box", lambda: children(self.outer.pid))[0]
        atexit.register(self.close)
        wait_until("the box's init", lambda: "python3" in open(f"/proc/{self.init}/comm").read())
        for path in FOLDERS:
            self.run("mount", "-t", "tmpfs", "none", path)
        if shared:
            self.run("mkdir", "/run/share")
            self.run("mount", "--bind", shared, "/run/share")
        self.run("ip", "link", "set", "lo", "up")
        self.configure()

    def configure(self, **more):
        settings = {"name": self.name, "address": self.address, "accel": "tcg", "memory_mib": 4096}
        settings.update(more)
        text = "".join(f"{k}: {v}\n" for k, v in settings.items())
        self.write("/etc/gantry/host.yaml", text)

    def nsenter(self, *argv):
        return ["nsenter", "-t", str(self.init), "-m", "-n", "-p", "--", *argv]

    def run(self, *argv, check=True, **kw):
        return subprocess.run(self.nsenter(*argv), check=check, text=True, stdout=subprocess.PIPE, timeout=30, **kw).stdout

    def write(self, path, data):
        mode = "b" if isinstance(data, bytes) else ""
        os.makedirs(os.path.dirname(self.path(path)), exist_ok=True)
        with open(self.path(path), "w" + mode) as f:
            f.write(data)

    def path(self, path):
        """The same file, seen from outside."""
        return f"/proc/{self.init}/root{path}"

    def read(self, path):
        with open(self.path(path), errors="replace") as f:
            return f.read()

    def start_agent(self, **env):
        log = open(f"{self.folder}/agent.log", "a")
        self.agent = subprocess.Popen(self.nsenter(AGENT, "--debug"), stdout=log, stderr=log, env={**os.environ, **env})
        wait_until("the agent's socket", lambda: self.agent.poll() is not None or
                   (children(self.agent.pid) and os.path.exists(self.path("/run/gantry/agent.sock"))))
        assert self.agent.poll() is None, self.log()
        return self

    def agent_pid(self):
        return children(self.agent.pid)[0]

    def kill_agent(self, sig=signal.SIGKILL):
        os.kill(self.agent_pid(), sig)
        self.agent.wait(10)
        status, self.agent = self.agent.returncode, None
        if sig == signal.SIGKILL:
            os.unlink(self.path("/run/gantry/agent.sock"))
        return status

    def log(self):
        with open(f"{self.folder}/agent.log", errors="replace") as f:
            return f.read()

    def qemus(self):
        """Process ids, seen from outside, of the QEMUs of this box."""
        got = []
        for comm in glob.glob("/proc/[0-9]*/comm"):
            pid = comm.split("/")[2]
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") != os.readlink(f"/proc/{self.init}/ns/pid"):
                    continue
                with open(f"/proc/{pid}/cmdline", "rb") as f, open(f"/proc/{pid}/stat") as s:
                    args = f.read()
                    # Not the agent's own questions to the binary (--version).
                    if args.startswith(b"qemu-system") and b"-uuid" in args and s.read().rsplit(")", 1)[1].split()[0] != "Z":
                        got.append(int(pid))
            except OSError:
                pass
        return got

    def close(self):
        atexit.unregister(self.close)
        self.outer.kill()
        try:
            os.kill(self.init, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.outer.wait()
        if self.agent:
            self.agent.wait()
        if not os.environ.get("AGENTBOX_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Poke:
    """clusterd's part. Goals are kept here as dictionaries and sent whole by push()."""

    def __init__(self, box, program="clusterd", quorum="on"):
        self.box = box
        self.proc = subprocess.Popen(box.nsenter(POKE, "/run/gantry/agent.sock", program, quorum), stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True)
        self.goals = {"epoch": 1, "index": 0, "host": box.name, "cluster_name": "bench", "cluster_uuid": CLUSTER,
                      "domains": [], "migrations": [], "volumes": [], "pools": [], "peers": []}
        self.messages = queue.Queue()
        self.reports, self.errors, self.console = [], [], ""
        threading.Thread(target=self._reader, daemon=True).start()

    def _reader(self):
        for line in self.proc.stdout:
            got = json.loads(line)
            body = got["message"]
            if "report" in body:
                self.reports.append((got["ms"], body["report"]))
            elif "error" in body:
                self.errors.append(body["error"])
            elif "console_data" in body:
                self.console += body["console_data"]["data"]
            elif "console_close" in body:
                self.console += f"[closed: {body['console_close'].get('reason', '')}]"

    def send(self, line):
        self.proc.stdin.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
        self.proc.stdin.flush()

    def push(self, **changes):
        self.goals.update(changes)
        self.goals["index"] += 1
        self.send({"goals": self.goals})
        return time.monotonic() * 1000

    def report(self):
        return self.reports[-1][1] if self.reports else {}

    def domain(self, uuid):
        for d in self.report().get("domains", []):
            if d["uuid"] == uuid:
                return d
        return {}

    def migration(self, job):
        for m in self.report().get("migrations", []):
            if int(m["job_id"]) == job:
                return m
        return {}

    def wait_domain(self, uuid, state, generation=None, timeout=10.0):
        def there():
            d = self.domain(uuid)
            return d if d.get("state") == state and generation in (None, int(d["generation"])) else None
        try:
            return wait_until(f"domain {uuid[:8]} {state}", there, timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}; it is {self.domain(uuid)}; log:\n{self.box.log()[-3000:]}") from None

    def wait_migration(self, job, test, what, timeout=60.0):
        try:
            wait_until(f"task {job} {what}", lambda: self.migration(job) and test(self.migration(job)), timeout)
            return self.migration(job)
        except AssertionError as e:
            raise AssertionError(f"{e}; it is {self.migration(job)}; log:\n{self.box.log()[-3000:]}") from None

    def first(self, test, since=0):
        """Monotonic ms of the first report after `since` for which test is true."""
        for ms, report in self.reports:
            if ms >= since and test(report):
                return ms
        return None

    def close(self):
        self.proc.stdin.close()
        self.proc.wait(5)


def openssl(*argv):
    subprocess.run(["openssl", *argv], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def give_certificates(boxes, folder):
    """A CA of the cluster and a certificate for each box, as `clusterctl cluster init` and `join` would make them."""
    ca, key = f"{folder}/ca.crt", f"{folder}/ca.key"
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *ec, "-keyout", key, "-out", ca, "-days", "30", "-subj", f"/CN=bench CA/O={CLUSTER}")
    for box in boxes:
        base = f"{folder}/{box.name}"
        openssl("req", *ec, "-keyout", f"{base}.key", "-out", f"{base}.csr", "-subj", f"/O={CLUSTER}/CN={box.name}")
        with open(f"{base}.ext", "w") as f:
            f.write(f"subjectAltName=DNS:{box.name}\n")
        openssl("x509", "-req", "-in", f"{base}.csr", "-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "30",
                "-extfile", f"{base}.ext", "-out", f"{base}.crt")
        for source, name in ((ca, "ca.crt"), (f"{base}.crt", "host.crt"), (f"{base}.key", "host.key")):
            with open(source) as f:
                box.write(f"/etc/gantry/pki/{name}", f.read())


class Pair:
    """Two boxes on one cable, with one folder as their shared pool, and a stand-in for clusterd at each."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="agentbox-pair-")
        os.makedirs(f"{self.folder}/share")
        self.a = Box("hostA", "10.78.0.1", f"{self.folder}/share")
        self.b = Box("hostB", "10.78.0.2", f"{self.folder}/share")
        subprocess.run(["ip", "link", "add", "name", "box0", "netns", f"/proc/{self.a.init}/ns/net", "type", "veth",
                        "peer", "name", "box0", "netns", f"/proc/{self.b.init}/ns/net"], check=True)
        for box in (self.a, self.b):
            box.run("ip", "address", "add", f"{box.address}/24", "dev", "box0")
            box.run("ip", "link", "set", "box0", "up")
        give_certificates((self.a, self.b), self.folder)
        self.pools = [{"name": "p", "type": "dir", "target": "/run/share", "shared": True}]
        self.pokes = {}
        for box in (self.a, self.b):
            self.start(box)

    def start(self, box, **env):
        """Starts the box's agent (again); its goals are those of before."""
        old = self.pokes.get(box.name)
        box.start_agent(**env)
        poke = self.pokes[box.name] = Poke(box)
        if old:
            poke.goals = old.goals
        else:
            poke.goals["pools"] = self.pools
        wait_until("the host's report", lambda: poke.report().get("host", {}).get("accel"), 20)
        poke.push()
        return poke

    def other(self, box):
        return self.b if box is self.a else self.a

    def cable(self, state):
        self.a.run("ip", "link", "set", "box0", state)

    def volume(self, name, data=b"", size=1 << 20):
        with open(f"{self.folder}/share/{name}.raw", "wb") as f:
            f.write(data.ljust(size, b"\0"))
        return {"vdev": "xvda", "pool": "p", "volume": name, "format": "raw"}

    def run(self, s, source, generation):
        self.pokes[source.name].push(domains=[goal(s, generation)])
        return self.pokes[source.name].wait_domain(s["uuid"], "running", generation)

    def migration(self, s, source, job, generation, incoming, **more):
        """One side's goal; `generation` is the one the destination will own."""
        destination = self.other(source)
        peer = source if incoming else destination
        return {"job": {"id": job, "kind": "migrate", "state": "running", "domain_uuid": s["uuid"],
                        "domain_name": s["name"], "source": source.name, "destination": destination.name,
                        "generation": generation, "max_downtime_ms": 100, **more},
                "incoming": incoming, "spec": s, "peer_host": peer.name, "peer_address": peer.address,
                "source_generation": generation - 1}

    def begin(self, s, source, job, generation):
        for box, incoming in ((self.other(source), True), (source, False)):
            self.pokes[box.name].push(migrations=[self.migration(s, source, job, generation, incoming)])

    def commit(self, s, source, job, generation):
        """COMMIT is applied, at the destination first. Returns the monotonic ms of that."""
        destination = self.other(source)
        for box, incoming in ((destination, True), (source, False)):
            mine = [goal(s, generation, lease_from=source.name, lease_from_generation=generation - 1,
                         lease_proof=f"migrated by task {job}")] if incoming else []
            at = self.pokes[box.name].push(domains=mine, migrations=[
                self.migration(s, source, job, generation, incoming, committed=True)])
            committed = at if incoming else committed
        return committed

    def end(self, *boxes):
        """The task is over (done or aborted): no goals for it any more."""
        for box in boxes or (self.a, self.b):
            self.pokes[box.name].push(migrations=[])

    def close(self):
        self.a.close()
        self.b.close()
        if not os.environ.get("AGENTBOX_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def uuid_of(n):
    return f"0d0a0000-0000-4000-8000-{n:012d}"


def spec(n, **more):
    s = {"name": f"dom{n}", "uuid": uuid_of(n), "type": "hvm", "memory_bytes": 32 << 20, "vcpus": 1, "max_vcpus": 1,
         "machine": "pc-q35-7.2", "boot_order": "c"}
    s.update(more)
    return s


def goal(s, generation=1, state="running", **more):
    return {"spec": s, "generation": generation, "goal": state, "ha": True, **more}
