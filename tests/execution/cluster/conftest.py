"""A real Ray cluster of several nodes on this machine, which tests add nodes to."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for the encoders of these tests, here and in workers


@pytest.fixture(scope="session")
def head() -> Iterator[Any]:
    """A cluster whose first node, which this process is connected to, does no work."""
    from ray.cluster_utils import Cluster

    # A short path, as sockets need it. Without the variable, Ray would write the address of this cluster to the
    # folder that all clusters of the machine share.
    folder = tempfile.TemporaryDirectory(prefix="nucpro-", dir="/tmp", ignore_cleanup_errors=True)
    with pytest.MonkeyPatch.context() as patch, folder as temporary:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", temporary)
        cluster = Cluster()
        cluster.add_node(num_cpus=0, include_dashboard=False)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def node(head: Any) -> None:
    """A node with room for two encoders, which stays for the next tests: starting one takes seconds."""
    if not head.worker_nodes:
        head.add_node(num_cpus=3)


@pytest.fixture
def add_node(head: Any) -> Iterator[Callable[[], Any]]:
    """Adds nodes of two cores to a cluster that has none; they are gone after the test."""

    def remove_all() -> None:
        for node in list(head.worker_nodes):
            head.remove_node(node)

    remove_all()
    yield lambda: head.add_node(num_cpus=2)
    remove_all()
