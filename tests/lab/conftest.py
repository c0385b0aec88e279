"""Labs for the scenarios. A lab goes down with this process, however it ends."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
# Agents of the labs look here for the fault that a test wants (lib/fault.h).
os.environ["GANTRY_FAULT_FILE"] = "/run/gantry/fault"

from labkit import Lab  # noqa: E402
from labkit.cluster import Cluster  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also the scenarios marked long")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes long; run with --long, not in CI's 25 minutes")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    left = [item for item in items if item.get_closest_marker("long")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def make_lab(name, hosts=3, **options):
    return Lab(f"test-{name}-{os.getpid()}", hosts=hosts, with_parent=os.getpid(), **options)


@pytest.fixture(scope="module")
def cluster(request):
    """Three hosts, fence devices, an NFS pool: one for all tests of a file, left as found by each."""
    with make_lab(request.module.__name__) as lab:
        cluster = Cluster(lab)
        cluster.create_all()
        yield cluster


@pytest.fixture(autouse=True)
def logs_of_a_failure(request):
    """Prints the end of the daemons' logs when a test fails: the lab is gone afterwards."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed or "cluster" not in request.fixturenames:
        return
    lab = request.getfixturevalue("cluster").lab
    for log in sorted(lab.state.glob("hosts/*/var-log-gantry/*.log")):
        if log.stat().st_size and "console" not in log.name:
            print(f"---- {log.relative_to(lab.state)}")
            print("\n".join(log.read_text(errors="replace").splitlines()[-25:]))
