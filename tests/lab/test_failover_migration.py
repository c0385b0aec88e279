"""The source of a live migration loses its power, in each stage before COMMIT. What test_migration_matrix.py does to the destination and to agents."""

import time

import pytest

from conftest import make_lab
from failover import Watch, make_cluster, move, whole_again
from labkit.cluster import wait_until
from test_migration_matrix import CONTINUE, FAULT, arm, start_migration, was_hit

SOURCE, DESTINATION = "hostB", "hostC"
# Not verification: whether the copy is whole by then is chance, and either end is right.
STAGES = ["pre-migration", "reservation", "pre-copy", "hand-over", "stop-and-copy"]


@pytest.fixture(scope="module")
def cluster():
    with make_lab("failover-migration") as lab:
        yield make_cluster(lab, {"web1": SOURCE})


@pytest.fixture(autouse=True)
def home(cluster):
    whole_again(cluster)
    for host in cluster.lab.hosts:
        cluster.lab.exec(host, ["rm", "-f", FAULT, CONTINUE])
    move(cluster, "web1", SOURCE)


@pytest.mark.parametrize("stage", STAGES)
def test_the_source_loses_power(cluster, stage):
    """Before COMMIT the domain is lost with it, and started once elsewhere."""
    watch = Watch(cluster)
    arm(cluster, SOURCE, f"migrate.source.{stage}", "pause")
    start_migration(cluster, "web1", DESTINATION)
    wait_until("the source stands still at its point", lambda: was_hit(cluster, SOURCE), 60)
    time.sleep(0.3)       # what the destination can do without it, it does
    cluster.lab.kill(SOURCE)
    watch.wait_elsewhere("web1")
    watch.check(started={"web1": 1}, not_on=[SOURCE])


def test_the_source_loses_power_when_all_is_copied(cluster):
    """COMMIT needs nothing of it any more: the guest goes on and was not started."""
    watch = Watch(cluster)
    arm(cluster, SOURCE, "migrate.source.commitment", "pause")
    start_migration(cluster, "web1", DESTINATION)
    wait_until("the source stands still at its point", lambda: was_hit(cluster, SOURCE), 60)
    cluster.lab.kill(SOURCE)
    watch.wait_elsewhere("web1")
    watch.check(on={"web1": DESTINATION})
