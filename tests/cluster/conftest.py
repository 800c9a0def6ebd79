"""A real Ray cluster of several nodes on this machine, which tests add nodes to."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

ray = pytest.importorskip("ray")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for the encoders of these tests, here and in workers


@pytest.fixture(scope="session")
def head() -> Iterator[Any]:
    """A cluster whose first node, which this process is connected to, does no work."""
    from ray.cluster_utils import Cluster

    # A short path, as sockets need it.
    folder = tempfile.TemporaryDirectory(prefix="nucpro-", dir="/tmp", ignore_cleanup_errors=True)
    with pytest.MonkeyPatch.context() as patch, folder as temporary:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        cluster.add_node(num_cpus=0, include_dashboard=False, temp_dir=temporary)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def add_node(head: Any) -> Iterator[Callable[[], Any]]:
    """Adds nodes of two cores; they are gone after the test."""

    def add() -> Any:
        return head.add_node(num_cpus=2)

    yield add
    for node in list(head.worker_nodes):
        head.remove_node(node)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Give each test of this folder a second try: Ray's own time limits pass on a machine that is too busy."""
    if Path(__file__).parent not in item.path.parents:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=item)
    if any(report.failed for report in reports):
        item._initrequest()  # type: ignore[attr-defined]  # fixtures of the first try are gone
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
