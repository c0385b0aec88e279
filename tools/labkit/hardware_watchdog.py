"""A host's hardware watchdog, as the board would have it: outside the host, so that freezing the host does not stop it.

The host writes to the FIFO WATCHDOG_FIFO as it would to /dev/watchdog. The first byte arms it; from then on a silence of
`watchdog_timeout_s` (host.yaml; 10 s) takes the host's power. A 'V' as the last byte before the close disarms it.
"""

import asyncio
import os
import re
import time

from .layout import WATCHDOG_FIFO

POLL_S = 0.05
TIMEOUT_S = 10.0
READ_MAX = 4096


class HardwareWatchdog:
    """Of one boot of one host. `pid` is its init as this process sees it, `settings` its host.yaml from outside."""

    def __init__(self, pid, settings):
        self.path = f"/proc/{pid}/root{WATCHDOG_FIFO}"
        self.settings = settings
        self.fires_at = None  # None: not armed
        self.last = b""
        self.task = None

    def start(self, fire):
        """`fire()` is awaited once when it is time."""
        self.task = asyncio.create_task(self.run(fire))

    def stop(self):
        self.task.cancel()

    async def run(self, fire):
        """Until it has fired, or is stopped with the host's power."""
        fifo = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while not self.look(fifo, time.monotonic()):
                await asyncio.sleep(POLL_S)
        finally:
            os.close(fifo)
        await fire()

    def look(self, fifo, now):
        """Take in what was written; True when it is time to fire."""
        try:
            data = os.read(fifo, READ_MAX)
        except BlockingIOError:  # open, nothing new
            return self.fires_at is not None and now >= self.fires_at
        if data:
            self.last = data[-1:]
            self.fires_at = now + self.timeout_s()
        elif self.last == b"V":  # nobody has it open any more
            self.fires_at = None
        return self.fires_at is not None and now >= self.fires_at

    def timeout_s(self):
        """FIFOs take no ioctl: the time-out is read where the agent finds it."""
        try:
            found = re.search(r"^watchdog_timeout_s:\s*(\d+)", self.settings.read_text(), re.MULTILINE)
        except OSError:
            found = None
        return float(found[1]) if found else TIMEOUT_S
