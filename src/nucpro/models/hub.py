"""Downloads from the Hugging Face hub: which files, which commit, and what to say when it does not work.

:mod:`nucpro.models.weights` asks; files land in the cache that all programs share, or in a folder. All
talking to the hub is huggingface_hub's, which resumes what was cut off and moves only whole files into place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from tqdm.auto import tqdm

from nucpro.errors import ModelError
from nucpro.formats.opening import file_digest

__all__ = ["Repository", "Snapshot", "commit_of", "download_into", "pin", "snapshot"]

logger = logging.getLogger(__name__)

# huggingface_hub has changed its HTTP library twice; the bases of its own error belong to the one in use.
_CONNECTION_ERRORS: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError)

_PATIENCE = 10.0
"""Seconds to wait for the hub where somebody only asks whether it is there."""

ChooseFiles = Callable[[Sequence[str]], list[str]]
"""Picks the files worth having from the names of all files of a repository."""


@dataclass(frozen=True)
class Repository:
    """A model on the hub.

    Parameters
    ----------
    id : str
        ``owner/name``.
    revision : str
        Branch, tag or commit hash.
    endpoint : str or None
        Address of the hub; None for the usual one.
    show_progress : bool
        Whether huggingface_hub may draw progress bars on the terminal.
    """

    id: str
    revision: str
    endpoint: str | None
    show_progress: bool = False

    def __str__(self) -> str:
        return f"model {self.id!r} (revision {self.revision!r})"


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit on disk.

    Parameters
    ----------
    folder : Path
        Where they are.
    commit : str
        Full commit hash.
    """

    folder: Path
    commit: str


class _SilentBar(tqdm):  # type: ignore[type-arg]
    """Progress bar that draws nothing: the library prints nothing unless it is asked to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("name", None)
        super().__init__(*args, **{**kwargs, "disable": True})


def snapshot(
    repository: Repository, *, cache_dir: Path | None, offline: bool, choose: ChooseFiles
) -> Snapshot:
    """Files of a repository in the cache, downloaded where they are not there yet.

    Parameters
    ----------
    repository : Repository
        What to get.
    cache_dir : Path or None
        The cache; None for the one that all programs share.
    offline : bool
        Take what is in the cache and ask nobody.
    choose : callable
        Picks the files to get.

    Returns
    -------
    Snapshot
        Folder and commit. Where the hub cannot be reached but the cache holds the revision, that is taken,
        and the log says so.

    Raises
    ------
    ModelError
        If the repository or revision does not exist, or cannot be downloaded and is not in the cache.
    """
    if offline:
        cached = _cached(repository, cache_dir)
        if cached is None:
            raise ModelError(
                f"{repository} is not in the local cache, and downloads are off; {_remedy(repository)}"
            )
        return cached
    try:
        names, _ = _listing(repository)
    except _CONNECTION_ERRORS as error:
        cached = _cached(repository, cache_dir)
        if cached is None:
            raise _unreachable(repository, error) from error
        logger.warning(
            "%s: the hub cannot be reached; the cached commit %s is used", repository, cached.commit
        )
        return cached
    return _snapshot_of(_download(repository, choose(names), cache_dir=cache_dir))


def commit_of(repository: Repository) -> str:
    """Commit hash of a repository's revision, as the hub tells it now; nothing is downloaded.

    Raises
    ------
    ModelError
        If the repository or revision does not exist, or the hub does not answer within seconds.
    """
    try:
        return _listing(repository, timeout=_PATIENCE)[1]
    except _CONNECTION_ERRORS as error:
        raise _unreachable(repository, error) from error


def pin(repository: Repository) -> tuple[Repository, list[str]]:
    """Ask the hub what a repository holds now; nothing is downloaded.

    Returns
    -------
    Repository
        The same with its commit hash as the revision, so that all files are of one even when the branch moves
        meanwhile.
    list of str
        Names of all its files.

    Raises
    ------
    ModelError
        If the repository or revision does not exist, or the hub cannot be reached.
    """
    try:
        names, commit = _listing(repository)
    except _CONNECTION_ERRORS as error:
        raise _unreachable(repository, error) from error
    return replace(repository, revision=commit), names


def download_into(repository: Repository, folder: Path, names: list[str]) -> None:
    """Put files of a repository into a folder, and make sure that they are those.

    huggingface_hub takes what lies in the folder already where the hub fails in the middle, whatever its commit.

    Parameters
    ----------
    repository : Repository
        What to get, as :func:`pin` gave it.
    folder : Path
        Where to; made if it is not there.
    names : list of str
        The files to get.

    Raises
    ------
    ModelError
        If they cannot be downloaded, or other files lie there after it.
    """
    _download(repository, names, local_dir=folder)
    try:
        info = HfApi(endpoint=repository.endpoint).model_info(
            repository.id, revision=repository.revision, files_metadata=True
        )
    except _CONNECTION_ERRORS as error:
        raise _unreachable(repository, error) from error
    for file in info.siblings or ():
        path = folder / file.rfilename
        if file.rfilename in names and not _is_file_of(path, file):
            raise ModelError(f"{path}: is not the file of {repository}; the download broke off: try again")


def _is_file_of(path: Path, file: RepoSibling) -> bool:
    """Whether a file is the one of a repository: by size and, for weights, by digest."""
    if not path.is_file() or file.size not in (None, path.stat().st_size):
        return False
    return file.lfs is None or file_digest(path, ModelError) == file.lfs.sha256


def _listing(repository: Repository, timeout: float | None = None) -> tuple[list[str], str]:
    """Names of all files of a revision, and its commit hash."""
    try:
        info = HfApi(endpoint=repository.endpoint).model_info(
            repository.id, revision=repository.revision, timeout=timeout
        )
    except HFValidationError as error:
        raise ModelError(
            f"model {repository.id!r} is neither a folder nor the id of a repository (owner/name): {error}"
        ) from error
    except GatedRepoError as error:
        raise ModelError(
            f"{repository}: access must be granted by its owner; ask for it on the model's page, then log in "
            "with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{repository}: the repository has no such revision; give a branch, a tag or a full commit hash"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{repository}: there is no such folder here, and no such repository on the hub; check the "
            "spelling, or log in with `hf auth login` if it is private"
        ) from error
    if info.sha is None:
        raise ModelError(f"{repository}: the hub did not say which commit it is; is the endpoint a hub?")
    return [file.rfilename for file in info.siblings or ()], info.sha


def _download(
    repository: Repository, names: list[str], *, cache_dir: Path | None = None, local_dir: Path | None = None
) -> Path:
    logger.info("%s: getting %s", repository, ", ".join(names))
    try:
        folder = snapshot_download(
            repository.id,
            revision=repository.revision,
            endpoint=repository.endpoint,
            allow_patterns=names,
            cache_dir=cache_dir,
            local_dir=local_dir,
            tqdm_class=None if repository.show_progress else _SilentBar,
        )
    except _CONNECTION_ERRORS as error:
        raise ModelError(
            f"{repository}: the download broke off ({_first_line(error)}); nothing half-made is used: "
            f"try again, finished files are kept; or {_remedy(repository)}"
        ) from error
    return Path(folder)


def _cached(repository: Repository, cache_dir: Path | None) -> Snapshot | None:
    config = try_to_load_from_cache(
        repository.id, "config.json", cache_dir=cache_dir, revision=repository.revision
    )
    return _snapshot_of(Path(config).parent) if isinstance(config, str) else None


def _snapshot_of(folder: Path) -> Snapshot:
    # The cache names a snapshot's folder after its commit.
    return Snapshot(folder, folder.name)


def _unreachable(repository: Repository, error: Exception) -> ModelError:
    return ModelError(
        f"{repository}: the hub cannot be reached ({_first_line(error)}), and the model is not in the local "
        f"cache; {_remedy(repository)}"
    )


def _remedy(repository: Repository) -> str:
    return (
        f"on a machine with network, run `nucpro fetch-models FOLDER --model {repository.id}` and give "
        "that folder as the model"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
