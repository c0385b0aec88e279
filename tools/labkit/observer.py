"""What the observer saw: reads the record file of gantry-observer (tests/lab/observer.c describes the format).

Times are seconds of CLOCK_MONOTONIC, as time.monotonic() gives them; a guest is its source address.
"""

import struct
import time
from dataclasses import dataclass

RECORD = struct.Struct("=QQ4sHHIIQQQQ")
ORDER_SLACK_S = 0.1  # the records' times are in order but for scheduling between two clock readings


@dataclass(frozen=True)
class Tick:
    """One datagram of a guest: when it arrived, what it said.

    `disk_records` counts what its disk has acknowledged; 0 until it has read its log back (or has no disk).
    """

    time: float
    wall: float
    guest: str
    port: int
    boot: int
    seq: int
    verify_errors: int
    disk_errors: int
    guest_time: float
    disk_records: int


@dataclass(frozen=True)
class Gap:
    """A time without ticks, from the tick before it to the one after it."""

    seconds: float
    start: float
    end: float
    seq_before: int
    seq_after: int
    same_boot: bool


class Observer:
    def __init__(self, path):
        self.path = path

    def ticks(self, guest=None, since=None, until=None):
        """All ticks of a guest (or of all) that arrived in [since, until], in order of arrival."""
        found = []
        for (mono, wall, address, port, _, verify, disk, boot, seq, guest_ns, records) in RECORD.iter_unpack(
                self._read(since)):
            at = mono / 1e9
            source = ".".join(str(octet) for octet in address)
            if (guest and source != guest) or (since and at < since) or (until and at > until):
                continue
            found.append(Tick(at, wall / 1e9, source, port, boot, seq, verify, disk, guest_ns / 1e9, records))
        return found

    def _read(self, since):
        """The records from a little before `since` on, so that polling does not read hours of ticks again."""
        try:
            with open(self.path, "rb") as records:
                low, high = 0, records.seek(0, 2) // RECORD.size
                end = high
                while since and low < high:
                    middle = (low + high) // 2
                    records.seek(middle * RECORD.size)
                    if struct.unpack("=Q", records.read(8))[0] / 1e9 < since - ORDER_SLACK_S:
                        low = middle + 1
                    else:
                        high = middle
                records.seek(low * RECORD.size)
                return records.read((end - low) * RECORD.size)
        except FileNotFoundError:
            return b""

    def gaps(self, since=None, until=None, guest=None, count=5):
        """The largest gaps between consecutive ticks, largest first. Pass a guest unless there is only one."""
        ticks = self.ticks(guest, since, until)
        gaps = [Gap(b.time - a.time, a.time, b.time, a.seq, b.seq, a.boot == b.boot)
                for a, b in zip(ticks, ticks[1:])]
        return sorted(gaps, key=lambda gap: gap.seconds, reverse=True)[:count]

    def last_tick(self, guest=None, until=None):
        ticks = self.ticks(guest, until=until)
        return ticks[-1] if ticks else None

    def first_tick(self, guest=None, since=None):
        ticks = self.ticks(guest, since=since)
        return ticks[0] if ticks else None

    def wait_tick(self, guest=None, since=None, timeout=30):
        """The first tick after `since` (default: now), waiting for it; None when the time is over."""
        since = time.monotonic() if since is None else since
        deadline = time.monotonic() + timeout
        while True:
            tick = self.first_tick(guest, since)
            if tick or time.monotonic() > deadline:
                return tick
            time.sleep(0.01)

    def faults(self, guest=None, since=None):
        """Ticks that speak of corruption: errors counted by the guest, or a sequence that went back in one boot."""
        bad, last = [], {}
        for tick in self.ticks(guest, since):
            before = last.get((tick.guest, tick.boot))
            if tick.verify_errors or tick.disk_errors or (before is not None and tick.seq <= before):
                bad.append(tick)
            last[(tick.guest, tick.boot)] = tick.seq
        return bad
