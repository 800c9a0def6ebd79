"""A Ray cluster: either a local one for the duration of the run, or a running one.

The resources of its nodes determine the number of concurrent encoders and calls. A local cluster listens only
on the loopback interface, has no dashboard and no telemetry, and ends with this process, however it ends.
"""

from __future__ import annotations

import logging
import math
import os
import runpy
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private import ray_constants
from ray._private.accelerators import get_accelerator_manager_for_resource

from nucpro.errors import PreflightError, WorkerError, counted
from nucpro.execution.workers import MOST_WORKERS
from nucpro.machine import cores
from nucpro.options import ModelOptions
from nucpro.state import lock

__all__ = ["Session"]

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_BETWEEN_CHECKS = 0.5
_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_CLOSE = 20.0
"""Ray ends the process of a lost cluster after 60, without a word, and leaves its folder."""
_HOLDING = (ray_constants.PROCESS_TYPE_GCS_SERVER, ray_constants.PROCESS_TYPE_RAYLET)
"""Processes that the cluster needs."""
_LONGEST_FOLDER = 40
_FOLDER = "nucpro-ray-"
_HELD = "lock"
_OBJECT_STORE = 128 * 2**20  # arguments and results are small; vectors go to files
_QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "configure_logging": False,
}


class Session:
    """Connection to a Ray cluster, opened on first use.

    Parameters
    ----------
    options : ModelOptions
        Address, number of encoders, and what each takes.
    """

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._stack = ExitStack()
        self._nodes: list[dict[str, float]] = []
        self._next_look = 0.0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._told_of_loss: list[Callable[[WorkerError], object]] = []
        self.is_running = False

    @property
    def demand(self) -> dict[str, float]:
        """Resources of an encoder, in Ray's terms."""
        gpus = self._options.gpus_per_worker if self._options.device == "cuda" else 0.0
        return {"num_cpus": self._options.cpus_per_worker, "num_gpus": gpus}

    def start(self) -> None:
        """Start a local cluster, or connect to the named one.

        If this process is already connected to one, it is used and left running.

        Raises
        ------
        PreflightError
            The cluster cannot be started or reached.
        """
        if self.is_running:
            return
        self._stack.enter_context(_messages_logged())
        if not ray.is_initialized():
            # Ray's own log lines are about Ray; what matters is in the errors that it raises.
            logging.getLogger("ray").setLevel(logging.CRITICAL)
            with _signals_kept():
                try:
                    self._connect() if self._options.address else self._start_here()
                except Exception as error:
                    # Processes that end while they start make Ray raise errors of many kinds.
                    self.close()
                    raise PreflightError([self._refusal(error)]) from error
        self.is_running = True

    def close(self) -> None:
        """Disconnect; a local cluster is stopped."""
        self.is_running = False
        self._stack.close()

    def when_lost(self, tell: Callable[[WorkerError], object]) -> None:
        """Register a callback, called from another thread when the local cluster is lost."""
        self._told_of_loss.append(tell)

    def require_alive(self) -> None:
        """Check that the core processes of the local cluster are running.

        Without one of them, Ray stops responding and later ends this process.

        Raises
        ------
        WorkerError
            One ended; the message contains which, and how.
        """
        for name, process in self._processes.items():
            if (code := process.poll()) is not None:
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                raise WorkerError(
                    f"Ray's process {name} ended ({how}), and the cluster of this machine with it; was it killed, or "
                    "is memory short? Run the same command again: finished work is kept"
                )

    def problems(self) -> list[str]:
        """Why no present node has the resources for an encoder."""
        if self.room():
            return []
        demand = ", ".join(f"{share:g} {name.removeprefix('num_')}" for name, share in self.demand.items())
        there = "; ".join(
            f"{node.get('CPU', 0.0):g} cpus, {node.get('GPU', 0.0):g} gpus" for node in self._nodes
        )
        return [
            f"no node of the cluster has the resources for an encoder, which takes {demand}; its nodes have "
            f"{there or 'nothing'}; lower --gpus-per-worker or --cpus-per-worker, add nodes, or use --device cpu"
        ]

    def room(self) -> int:
        """Encoders that fit on the present nodes."""
        self._look()
        return sum(self._room_of(node) for node in self._nodes)

    @property
    def encoders(self) -> int:
        """Encoders to run: the requested number, or as many as the resources allow."""
        return self._options.workers or max(1, self.room())

    @property
    def calls(self) -> int:
        """Concurrent calls without a model: each has a file pair in memory, and one can keep up with a GPU."""
        self._look()
        cores = sum(node.get("CPU", 0.0) for node in self._nodes)
        devices = sum(node.get("GPU", 0.0) for node in self._nodes)
        return max(1, int(min(cores, max(MOST_WORKERS * len(self._nodes), devices))))

    def _room_of(self, node: dict[str, float]) -> int:
        cpus, gpus = self.demand["num_cpus"], self.demand["num_gpus"]
        cores = node.get("CPU", 0.0)
        if gpus:
            return int(min(node.get("GPU", 0.0) / gpus, cores / cpus))
        # One core is left for reading back and merging, except on nodes with a single core.
        return int(max(cores - 1, min(cores, 1)) / cpus)

    def _look(self) -> None:
        """Query the nodes, at most every few seconds: there may be thousands of calls per second."""
        if time.monotonic() >= self._next_look:
            self._nodes = [node["Resources"] for node in _nodes() if node["Alive"]]
            self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS

    def _connect(self) -> None:
        address = self._options.address or "auto"
        if address != "auto":
            # Ray itself would retry for minutes if nothing listens there.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
        ray.init(address=address, **_QUIET)
        self._stack.callback(ray.shutdown)
        logger.info("Connected to the Ray cluster at %s", ray.get_runtime_context().gcs_address)

    def _start_here(self) -> None:
        self._stack.enter_context(_own_settings())
        folder = self._stack.enter_context(_private_folder())
        count = cores()
        gpus = _gpus_here() if self._options.device == "cuda" else 0
        with _loopback_only():
            ray.init(
                address="local",
                include_dashboard=False,
                num_cpus=self._cpus_to_declare(count, gpus),
                num_gpus=gpus,
                object_store_memory=_OBJECT_STORE,
                _temp_dir=str(folder),
                **_QUIET,
            )
        self._watch(folder.parent)
        addresses = {node["NodeManagerAddress"] for node in _nodes()}
        if addresses != {_LOOPBACK}:
            logger.warning("Ray listens on %s, not on the loopback interface alone", ", ".join(addresses))
        logger.info(
            "Started Ray %s on this machine: %s, %s",
            ray.__version__,
            counted(count, "core"),
            counted(gpus, "GPU"),
        )

    def _watch(self, folder: Path) -> None:
        """Watch the processes of the cluster, in a thread that ends when Ray is shut down."""
        node: Any = ray._private.worker._global_node
        closed = threading.Event()

        def look() -> None:
            while not closed.wait(_SECONDS_BETWEEN_CHECKS):
                try:
                    self.require_alive()
                except WorkerError as error:
                    for tell in self._told_of_loss:
                        tell(error)
                    if not closed.wait(_SECONDS_TO_CLOSE):
                        _end_process(error, node, folder)
                    return

        self._stack.callback(closed.set)
        self._stack.callback(ray.shutdown)
        self._stack.callback(self._expect_end)
        self._processes = {name: node.all_processes[name][0].process for name in _HOLDING}
        threading.Thread(target=look, name="nucpro-ray-watch", daemon=True).start()

    def _expect_end(self) -> None:
        self._processes = {}

    def _cpus_to_declare(self, count: int, gpus: int) -> int:
        """Number of cores for Ray: enough for all requested encoders, and one more for calls."""
        encoders = self._options.workers or (int(gpus / self._options.gpus_per_worker) if gpus else 0)
        return max(count, math.ceil(encoders * self._options.cpus_per_worker) + 1)

    def _refusal(self, error: Exception) -> str:
        reason = " ".join(str(error).split()) or type(error).__name__
        if self._options.address:
            return (
                f"the Ray cluster at {self._options.address} cannot be used: {reason}; run this on one of its "
                "nodes, and see with `ray status` whether it is up"
            )
        return f"Ray cannot be started on this machine: {reason}; use --engine local for one device"


def _end_process(error: WorkerError, node: Any, folder: Path) -> None:
    """End this process: its main thread waits in Ray, which cannot be interrupted, for a process that ended."""
    logger.error("%s", error)
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def _gpus_here() -> int:
    """GPUs for encoders, as Ray counts them: without torch, which takes seconds to import."""
    manager: Any = get_accelerator_manager_for_resource("GPU")
    if manager is None or not _built_for_gpus():
        return 0
    there = manager.get_current_node_num_accelerators()
    visible = manager.get_current_process_visible_accelerator_ids()
    return int(there if visible is None else min(there, len(visible)))


def _built_for_gpus() -> bool:
    """Whether torch is a build for GPUs, from its version file: torch is not imported."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return False
    facts = runpy.run_path(str(Path(found.origin).with_name("version.py")))
    return bool(facts.get("cuda") or facts.get("hip"))


@contextmanager
def _messages_logged() -> Iterator[None]:
    """Log what Ray would print about its processes: the terminal belongs to the run."""
    ray_worker: Any = ray._private.worker
    before = ray_worker.print_to_stdstream

    def log(data: dict[str, Any], **_: Any) -> None:
        logger.debug("Ray: %s", "\n".join(data["lines"]))

    ray_worker.print_to_stdstream = log
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = before


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the SIGTERM handler of the run, which Ray would replace."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _own_settings() -> Iterator[None]:
    """Settings that Ray reads only from the environment: no telemetry, and a secret token.

    Without a token, every user of this machine could run code in the cluster. Existing variables are about
    the user's own clusters: they may name one of them, its ports and folders, or programs to run in workers.
    """
    raylet: Any = _raylet
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray 2.52 to 2.59 do not require the token by default.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _secret(),
        "RAY_enable_metrics_collection": "0",
    }
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    _replace_settings(settings)
    # Ray read its settings when it was imported.
    raylet.Config.initialize("")
    try:
        yield
    finally:
        _replace_settings(before)


def _replace_settings(settings: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ.update(settings)


@cache
def _secret() -> str:
    # Ray reads it once a process.
    return secrets.token_hex(32)


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Folder for Ray's sockets and logs, with a path that is short enough for sockets."""
    usual = tempfile.gettempdir()
    parent = usual if len(usual) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108 - the folder in it is our own
    _remove_abandoned(Path(parent))
    temporary = tempfile.TemporaryDirectory(prefix=_FOLDER, dir=parent, ignore_cleanup_errors=True)
    # Ray makes its folder readable for everybody; its parent stays private.
    with temporary as folder, lock.hold(Path(folder) / _HELD):
        yield Path(folder) / "ray"


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of killed runs."""
    for held in parent.glob(f"{_FOLDER}*/{_HELD}"):
        with suppress(OSError):
            # An empty file is not locked yet, or no longer.
            if held.stat().st_size and lock.state(held) == "none":
                shutil.rmtree(held.parent)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Make Ray listen on the loopback interface, as it does on systems without cluster support."""
    constants: Any = ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
