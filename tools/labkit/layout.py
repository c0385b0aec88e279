"""Names, addresses and paths of a lab: what its parts have to agree on.

The addresses are the same in every lab: each has network namespaces of its own.
"""

import json
import os
import re
import tempfile
from pathlib import Path

HOSTS_MAX = 16
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}\Z")

PYTHON = "/usr/bin/python3"
HUB_ADDRESS = "10.79.0.254"
GUEST_HUB_ADDRESS = "10.80.0.254"
POWER_PORT = 6230
TICK_PORT = 7900
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_BIN = "/run/lab/bin"
NOTIFY_SOCKET = "/run/lab/notify"
WATCHDOG_FIFO = "/run/lab/watchdog"
CLOCK_FILE = "/run/lab/clock"
HOST_PATH = f"{HOST_BIN}:{SYSTEM_PATH}"

# What a host keeps over a power loss, as it would on its disk: path in the host -> folder in the state folder.
DURABLE = {
    "/etc/corosync": "etc-corosync",
    "/var/lib/corosync": "var-lib-corosync",
    "/etc/gantry": "etc-gantry",
    "/var/lib/gantry": "var-lib-gantry",
    "/var/log/gantry": "var-log-gantry",
}

TOOLS = Path(__file__).resolve().parent.parent
TREE = TOOLS.parent


class LabError(Exception):
    """What went wrong, with the thing it went wrong with, for the user to read."""


def host_names(count):
    return [f"host{chr(ord('A') + i)}" for i in range(count)]


def host_number(name):
    return ord(name[-1]) - ord("A") + 1


def host_address(name):
    return f"10.79.0.{host_number(name)}"


def link_names(name):
    """The hub's ends of a host's two cables: cluster network, guests' network."""
    return f"lab{name[-1]}", f"guest{name[-1]}"


def check_name(name):
    if not NAME_PATTERN.match(name):
        raise LabError(f"lab name {name!r}: use up to 32 of a-z 0-9 _ . -, beginning with a letter or digit")
    return name


def state_base():
    """Folder that holds the state folders of all labs: GANTRY_LAB_DIR, else below /run, else below TMPDIR."""
    chosen = os.environ.get("GANTRY_LAB_DIR")
    if chosen:
        return Path(chosen).absolute()
    if os.access("/run", os.W_OK):
        return Path("/run/gantry-lab")
    return Path(tempfile.gettempdir()) / "gantry-lab"


def state_dir(name):
    return state_base() / check_name(name)


def service_environment():
    """Environment of everything that runs in a host: nothing of the caller's but what steers sanitizers and tests."""
    kept = {key: value for key, value in os.environ.items()
            if key.startswith(("ASAN_", "UBSAN_", "LSAN_", "GANTRY_"))}
    kept.pop("GANTRY_LAB_DIR", None)
    return {**kept, "PATH": HOST_PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}


def write_json(path, value):
    """Replace a file whole, so that a reader never sees half of it."""
    path = Path(path)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(value) + "\n")
    fresh.rename(path)
