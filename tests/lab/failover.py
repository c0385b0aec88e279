"""What every failover scenario checks: where each domain runs, how often it was started, and that no two of it ever ran.

    watch = Watch(cluster)
    cluster.lab.kill("hostB")
    watch.check(started={"web1": 1})         # web1 was started once more, the others were not

The witnesses are not the platform's own word: ticks that the observer stamped outside every host, the processes of the hosts, and
the records that the guests' disks hold.
"""

import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from labkit.cluster import Cluster, wait_until
from labkit.layout import LabError

LATE_TICK_S = 0.05        # a datagram of a killed host that was under way


def load_disklog():
    loader = SourceFileLoader("disklog", str(Path(__file__).resolve().parent / "guest" / "disklog"))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


disklog = load_disklog()


def make_cluster(lab, guests):
    """A cluster with these small guests; name -> host."""
    cluster = Cluster(lab)
    cluster.create_all()
    for name, host in guests.items():
        cluster.add_guest(name, host=host, memory=128, mb=8, rate=1, volume_mib=16, wait=False)
    for name in guests:
        assert lab.observer.wait_tick(cluster.guests[name], timeout=60), f"{name} is silent"
    return cluster


def whole_again(cluster):
    """Every fault is taken back: all hosts online, every guest runs and ticks."""
    lab = cluster.lab
    for line in ("delay 0", "fail off", "lie off"):
        lab.power(line)
    lab.heal()
    for host in lab.status()["hosts"]:
        if host["frozen"]:
            lab.thaw(host["name"])
    lab.store("start")
    for host in lab.status()["hosts"]:
        lab.on(host["name"])
    cluster.wait_quorate(90)
    for host in lab.hosts:
        cluster.wait_online(host, timeout=60)
        wait_until(f"{host} reaches the store", lambda: not cluster.host(host, quorate_host(cluster)).get("lost_pools"), 30)
    for guest, address in cluster.guests.items():
        wait_until(f"{guest} runs", lambda: (look(cluster, guest) or {}).get("state") == "running", 90)
        assert lab.observer.wait_tick(address, timeout=60), f"{guest} is silent"


def power(cluster, host):
    return next(known["power"] for known in cluster.lab.status()["hosts"] if known["name"] == host)


def boots(cluster):
    """How often each host was switched on: a host that was fenced and came back is not as it was."""
    return {known["name"]: known["boots"] for known in cluster.lab.status()["hosts"]}


def quorate_host(cluster, but=()):
    """A host that is in the quorum: one that has just booted still tells what it knew before."""
    for host in cluster.lab.status()["hosts"]:
        if host["name"] not in but and host["power"] == "on" and not host["frozen"] and cluster.is_quorate(host["name"]):
            return host["name"]
    return None


def look(cluster, guest, seen_from=None):
    """The domain as a host in the quorum (or `seen_from`) knows it; None while there is none to ask."""
    try:
        seen_from = seen_from or quorate_host(cluster)
        return cluster.domain(guest, seen_from) if seen_from else None
    except LabError:
        return None


def leader(cluster):
    members = cluster.json("cluster", "status", host=quorate_host(cluster))["members"]
    return next(member["name"] for member in members if member.get("leader"))


def move(cluster, guest, host):
    if look(cluster, guest)["host"] != host:
        cluster.ctl("migrate", guest, host, host=quorate_host(cluster))
    cluster.wait_state(guest, "running", 30, host)


def at_home(cluster, homes):
    """Every guest on the host that the scenario wants it on: name -> host."""
    for guest, host in homes.items():
        move(cluster, guest, host)


def confirm_dead(cluster, host, seen_from):
    cluster.ctl("fence", "confirm", host, "--yes", host=seen_from)


def qemus(cluster, guest):
    """host -> pids of the guest's QEMUs there; hosts that are off or frozen cannot be asked."""
    found = {}
    for host in cluster.lab.status()["hosts"]:
        if host["power"] == "on" and not host["frozen"]:
            done = cluster.lab.exec(host["name"], ["pgrep", "-f", f"^[^ ]*qemu-system.*guest={guest},"], check=False)
            if done.stdout.strip():
                found[host["name"]] = [int(pid) for pid in done.stdout.split()]
    return found


def writers(path):
    """The boots that wrote a guest's volume, each as often as it took over from another one, oldest first."""
    found = []
    with open(path, "rb") as volume:
        verdict = disklog.check(volume)
        assert verdict["ok"], f"{path.name}: {verdict['error']}"
        volume.seek(0)
        size = 512
        while len(block := volume.read(size)) == size and (record := disklog.read_record(block)):
            if record[5] != size:      # the first record names the size of all
                size = record[5]
                volume.seek(size)
            if not found or found[-1] != record[0]:
                found.append(record[0])
    return found


class Watch:
    """Notes how things are, so that check() can say what became of them."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.observer = cluster.lab.observer
        self.began = time.monotonic()
        self.before = {name: look(cluster, name) for name in cluster.guests}
        self.boot = {name: self.observer.last_tick(address).boot for name, address in cluster.guests.items()}

    def wait_elsewhere(self, guest, timeout=90, seen_from=None):
        """It runs on another host than before; seconds since the watch began."""
        home = self.before[guest]["host"]
        seen_from = seen_from or quorate_host(self.cluster, but=[home])
        def there():
            domain = look(self.cluster, guest, seen_from)
            return domain and domain["state"] == "running" and domain["host"] != home
        wait_until(f"{guest} runs elsewhere than on {home}", there, timeout, interval=0.05)
        return time.monotonic() - self.began

    def check(self, started=None, on=None, not_on=(), timeout=90, seen_from=None, overlap=False):
        """Every guest runs exactly once, and was started exactly `started[guest]` times (none is named: never). A tuple names all
        counts that are right: a start counts once it runs, and nobody can time a kill to come before or after that.

        on: guest -> the host it must be on (those that were not started: where they were); not_on: hosts that must have none.
        overlap: an old copy may have ticked for a moment beside the new one (a frozen host that woke up); it may not have written.
        """
        for guest in self.cluster.guests:
            times = (started or {}).get(guest, 0)
            self.check_guest(guest, times if isinstance(times, tuple) else (times,), (on or {}).get(guest), not_on, timeout, seen_from, overlap)

    def check_guest(self, guest, started, on=None, not_on=(), timeout=90, seen_from=None, overlap=False):
        def runs():
            domain = look(self.cluster, guest, seen_from)
            return domain if domain and domain["state"] == "running" and self.starts_of(guest, domain) >= started[0] else None
        wait_until(f"{guest} was started {started} times and runs", runs, timeout)
        boot = self.running_boot(guest, self.boot[guest] if started[-1] else None)
        domain = wait_until(f"{guest} runs", runs, timeout)
        assert self.starts_of(guest, domain) in started, f"{guest}: started {self.starts_of(guest, domain)} times, not {started}"
        want = on or (None if started[-1] else self.before[guest]["host"])
        assert want in (None, domain["host"]), f"{guest} is on {domain['host']}, not on {want}"
        assert domain["host"] not in not_on, f"{guest} is on {domain['host']}"
        wait_until(f"one QEMU of {guest}, on {domain['host']}", lambda: self.only_qemu(guest, domain["host"]), 30)
        assert (boot == self.boot[guest]) == (started[-1] == 0), f"{guest}: boot {boot:x}, before {self.boot[guest]:x}"
        self.check_ticks(guest, boot, started[-1], overlap)
        self.check_volume(guest, boot)

    def starts_of(self, guest, domain):
        return int(domain["starts"]) - int(self.before[guest]["starts"])

    def only_qemu(self, guest, host):
        found = qemus(self.cluster, guest)
        return list(found) == [host] and len(found[host]) == 1

    def running_boot(self, guest, ended):
        """The boot that ticks and writes to its volume now, other than the one that has `ended`."""
        def writes(more_than=0):
            tick = self.observer.last_tick(self.cluster.guests[guest])
            return tick if tick and tick.boot != ended and tick.time > time.monotonic() - 1 and tick.disk_records > more_than else None
        first = wait_until(f"{guest} ticks and writes", writes, 90)
        return wait_until(f"{guest} goes on writing", lambda: writes(first.disk_records), 30).boot

    def check_ticks(self, guest, boot, started, overlap):
        address = self.cluster.guests[guest]
        ticks = self.observer.ticks(address, since=self.began)
        order = list(dict.fromkeys(tick.boot for tick in ticks))
        assert len(order) <= started + 1, f"{guest}: {len(order)} boots ticked, but it was started {started} times"
        bad = self.observer.faults(address, since=self.began)
        assert not [tick for tick in bad if not overlap or tick.boot == boot], f"{guest}: {bad[:3]}"
        for old, new in zip(order, order[1:]):
            ended = max(tick.time for tick in ticks if tick.boot == old)
            began = min(tick.time for tick in ticks if tick.boot == new)
            assert overlap or ended < began + LATE_TICK_S, f"{guest}: boot {old:x} ticked {ended - began:.2f} s after {new:x} had begun"

    def check_volume(self, guest, boot):
        wrote = writers(self.cluster.lab.store_path(f"{guest}.raw"))
        assert wrote[-1] == boot, f"{guest}: {wrote[-1]:x} wrote last, but {boot:x} runs"
        assert len(set(wrote)) == len(wrote), f"{guest}: two wrote in turns: {[f'{one:x}' for one in wrote]}"
