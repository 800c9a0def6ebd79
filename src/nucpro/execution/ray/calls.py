"""Calls without a model on a Ray cluster: as in local processes, but as Ray tasks.

Results and errors are those of local processes. Ray retries a call on another node if its process was killed
or its node lost; this is safe, because calls write files atomically.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from nucpro.errors import WorkerError, reason_of
from nucpro.execution.ray.session import Session
from nucpro.execution.workers import Workers

__all__ = ["ATTEMPTS", "ClusterWorkers", "error_of"]

ATTEMPTS = 3
"""Attempts for work whose process is killed."""

Result = TypeVar("Result")


class ClusterWorkers(Workers):
    """Makes calls on all nodes of a cluster; a few calls are made in this process until it is started.

    Parameters
    ----------
    session : Session
        The cluster, which is started by the first call.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._waiting: set[Future[Any]] = set()
        session.when_lost(self._fail)

    @property
    def count(self) -> int:
        """Calls that can be made at a time."""
        self._session.start()
        return self._session.calls

    @property
    def is_running(self) -> bool:
        """Whether the cluster is started."""
        return self._session.is_running

    def submit(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Call ``function(*arguments)`` on some node; all must be picklable, paths the same on all nodes."""
        return self._submit({"num_cpus": 1.0}, function, arguments)

    def submit_to_device(self, function: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Call on a node with free resources for an encoder."""
        return self._submit(self._session.demand, function, arguments)

    def close(self, *, abandon: bool = False) -> None:
        """Does nothing: calls end with the session."""

    def _settled(
        self, result: Future[Any], done: Future[Any], name: str, arguments: tuple[object, ...]
    ) -> None:
        try:
            self._session.require_alive()
        except WorkerError as error:
            self._fail(error)
            return
        with suppress(InvalidStateError):
            _settle(result, done, name, arguments)

    def _fail(self, error: WorkerError) -> None:
        """Cancel all calls: those of a lost cluster never return."""
        for result in list(self._waiting):
            with suppress(InvalidStateError):
                result.set_exception(error)

    def _submit(
        self, demand: dict[str, float], function: Callable[..., Result], arguments: tuple[object, ...]
    ) -> Future[Result]:
        self._session.start()
        task = _REMOTE_CALL.options(
            max_retries=ATTEMPTS - 1, scheduling_strategy="SPREAD", name=function.__name__, **demand
        )
        result: Future[Result] = Future()
        self._waiting.add(result)
        result.add_done_callback(self._waiting.discard)
        answer = task.remote(function, *arguments).future()
        answer.add_done_callback(lambda done: self._settled(result, done, function.__name__, arguments))
        return result


def error_of(error: BaseException) -> BaseException:
    """Error as the function raised it, with the traceback of its process as the cause."""
    if not isinstance(error, RayTaskError) or not isinstance(error.cause, BaseException):
        return error
    if isinstance(error.cause, RayError):
        return WorkerError(
            "a worker cannot read what it was sent; install the same versions of nucpro and Ray on all nodes. "
            f"Ray says: {reason_of(error.cause)}"
        )
    # Ray's error is of both classes at once, and its text is the traceback.
    error.cause.__cause__ = WorkerError(f"traceback of the worker:\n{error}")
    return error.cause


def _call(function: Callable[..., Result], *arguments: Any) -> Result:
    return function(*arguments)


_REMOTE_CALL: Any = ray.remote(_call)  # one for all calls: Ray sends it to the cluster once


def _settle(result: Future[Any], done: Future[Any], name: str, arguments: tuple[object, ...]) -> None:
    error = done.exception()
    if error is None:
        result.set_result(done.result())
    elif isinstance(error, RayError) and not isinstance(error, RayTaskError):
        what = f"{name}({', '.join(map(str, arguments))})"
        result.set_exception(
            WorkerError(
                f"{what}: its process was killed or its node lost, {ATTEMPTS} times or for good; run the same command "
                f"again: finished work is kept. The last: {reason_of(error)}"
            )
        )
    else:
        result.set_exception(error_of(error))
