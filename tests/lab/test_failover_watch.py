"""The witnesses of the failover scenarios speak when they should: made-up ticks and volumes, no lab."""

import struct
from types import SimpleNamespace

import pytest

from failover import Watch, disklog
from labkit.observer import Observer, Tick

OLD, NEW = 1, 2


class MadeUp(Observer):
    def __init__(self, ticks):
        self.all = ticks

    def ticks(self, guest=None, since=None, until=None):
        return [tick for tick in self.all if tick.time >= since]


def tick(at, boot, seq, disk_errors=0):
    return Tick(at, at, "web1", 1, boot, seq, 0, disk_errors, 0, 1)


def watch(tmp_path, ticks=()):
    """As one that began after the old boot's first tick and before the failover."""
    made = Watch.__new__(Watch)
    made.cluster = SimpleNamespace(guests={"web1": "web1"}, lab=SimpleNamespace(store_path=lambda name: tmp_path / name))
    made.observer, made.began = MadeUp(list(ticks)), 1
    return made


FAILOVER = [*(tick(2 + n / 100, OLD, n) for n in range(10)), *(tick(5 + n / 100, NEW, n) for n in range(10))]


@pytest.mark.parametrize("more, started, overlap, says", [
    ([], 1, False, None),
    ([], 0, False, "2 boots ticked, but it was started 0 times"),
    ([tick(9, 3, 0)], 1, False, "3 boots ticked"),
    ([tick(6, OLD, 99)], 1, False, "1.00 s after 2 had begun"),
    ([tick(6, OLD, 99)], 1, True, None),
    ([tick(6, NEW, 99, disk_errors=1)], 1, True, "disk_errors=1"),
    ([tick(6, OLD, 99, disk_errors=1)], 1, True, None),
    ([tick(6, NEW, 3)], 1, False, "seq=3"),
])
def test_ticks(tmp_path, more, started, overlap, says):
    made = watch(tmp_path, FAILOVER + more)
    if says is None:
        return made.check_ticks("web1", NEW, started, overlap)
    with pytest.raises(AssertionError, match=says):
        made.check_ticks("web1", NEW, started, overlap)


def write_volume(path, boots, forget=None):
    """One record for each of `boots`, which name the boot that writes it; `forget`: this one knows nothing of those before it."""
    data, previous, seen = b"", 0, []
    for seq, boot in enumerate(boots):
        seen += [boot] * (boot not in seen)
        body = disklog.RECORD.pack(disklog.MAGIC, boot, seq, len(seen), 0, 0 if seq == forget else previous, 512, b"", 0)[:-4]
        previous = disklog.crc32c(body)
        data += body + struct.pack("<I", previous)
    path.write_bytes(data + bytes(4096))


@pytest.mark.parametrize("boots, forget, says", [
    ([OLD, OLD, NEW, NEW], None, None),
    ([OLD, NEW, NEW, OLD], None, "1 wrote last, but 2 runs"),
    ([OLD, NEW, OLD, NEW], None, "two wrote in turns"),
    ([OLD, NEW, NEW, NEW], 2, "record 2: the chain is broken"),
])
def test_volume(tmp_path, boots, forget, says):
    write_volume(tmp_path / "web1.raw", boots, forget)
    if says is None:
        return watch(tmp_path).check_volume("web1", NEW)
    with pytest.raises(AssertionError, match=says):
        watch(tmp_path).check_volume("web1", NEW)
