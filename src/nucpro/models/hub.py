"""Downloads from the Hugging Face hub: choice of files, commit, and errors.

:mod:`nucpro.models.weights` asks; files land in the cache that all programs share, in the layout that huggingface_hub
documents, or in a folder. Addresses, tokens and the place of the cache are huggingface_hub's, which is imported where
somebody is asked: it takes longer than a run with nothing to do. The bytes come through
:mod:`nucpro.formats.transfer`, which compares them with the hub's listing before they get a name.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from huggingface_hub import constants

from nucpro.errors import DataError, ModelError, StoreError, UsageError, human_size, is_plain, reason_of
from nucpro.formats.atomic import make_folder, write_text
from nucpro.formats.records import decoded
from nucpro.formats.transfer import AnswerError, Connection, Expected, part_of
from nucpro.progress import BYTES, Meter, Show, silent

__all__ = [
    "Repository",
    "Snapshot",
    "commit_of",
    "digest_in_cache",
    "download_into",
    "missing_in",
    "pin",
    "snapshot",
]

logger = logging.getLogger(__name__)

_PATIENCE_S = 10.0
"""Seconds to wait for a listing from the hub."""
_TIMEOUT_S = 30.0
_ATTEMPTS = 5
_WAIT_S = 0.5
_LARGEST_LISTING = 1 << 26
_COMPARED = 1 << 24
"""Bytes up to which a file that is in the cache is read and compared; weights are when their digest is taken."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

ChooseFiles = Callable[[Sequence[str]], list[str]]
"""Selects the files to download from the names of all files of a repository."""
Listing = Mapping[str, Expected]
"""Size and digest of each file of a commit, by name."""


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
    show : callable
        Takes the progress of a download, in bytes.
    """

    id: str
    revision: str
    endpoint: str | None
    show: Show = silent

    def __str__(self) -> str:
        return f"model {self.id!r} (revision {self.revision!r})"

    @property
    def address(self) -> str:
        """Address of the hub."""
        return (self.endpoint or constants.ENDPOINT).rstrip("/")


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


class _UnreachableError(Exception):
    """The hub gives no usable answer."""


def snapshot(
    repository: Repository, *, cache_dir: Path | None, offline: bool, choose: ChooseFiles
) -> Snapshot:
    """Files of a repository in the cache; missing ones are downloaded.

    Parameters
    ----------
    repository : Repository
        What to get.
    cache_dir : Path or None
        The cache; None for the one that all programs share.
    offline : bool
        Use the cache only, without network access.
    choose : callable
        Picks the files to get.

    Returns
    -------
    Snapshot
        Folder and commit. Where the hub cannot be reached but the cache holds the revision, that is taken,
        and this is logged.

    Raises
    ------
    ModelError
        If the repository or revision does not exist, or cannot be downloaded and is not in the cache.
    """
    if offline:
        cached = _Cache(repository, cache_dir).held()
        if cached is None:
            raise ModelError(
                f"{repository}: not in the local cache, and nothing is downloaded before the other problems are "
                f"solved; without network: {_remedy(repository)}"
            )
        return cached
    try:
        listing, commit = _listing(repository)
    except _UnreachableError as error:
        cached = _Cache(repository, cache_dir).held()
        if cached is None:
            raise _unreachable(repository, error) from error
        logger.warning(
            "%s: the hub cannot be reached; the cached commit %s is used", repository, cached.commit
        )
        return cached
    files = {name: listing[name] for name in choose(list(listing))}
    return _Cache(replace(repository, revision=commit), cache_dir).fill(repository.revision, files)


def commit_of(repository: Repository) -> str:
    """Current commit hash of a repository's revision on the hub; nothing is downloaded.

    Raises
    ------
    ModelError
        If the repository or revision does not exist, or the hub does not answer within seconds.
    """
    try:
        return _listing(repository)[1]
    except _UnreachableError as error:
        raise _unreachable(repository, error) from error


def pin(repository: Repository) -> tuple[Repository, Listing]:
    """Query the current content of a repository; nothing is downloaded.

    Returns
    -------
    Repository
        The same with its commit hash as the revision, so that all files are of one even when the branch moves
        meanwhile.
    mapping of str to Expected
        What all its files are, by name.

    Raises
    ------
    ModelError
        If the repository or revision does not exist, or the hub cannot be reached.
    """
    try:
        listing, commit = _listing(repository)
    except _UnreachableError as error:
        raise ModelError(
            f"{repository}: the hub cannot be reached ({error}); else run this command on a machine with network, "
            "and copy the folder here"
        ) from error
    return replace(repository, revision=commit), listing


def download_into(repository: Repository, folder: Path, files: Listing) -> None:
    """Put files of a repository into a folder, each in place of what has its name.

    Parameters
    ----------
    repository : Repository
        What to get, as :func:`pin` gave it.
    folder : Path
        Where to; it exists, and no other process does the same.
    files : mapping of str to Expected
        The files to get, such as :func:`missing_in` gives.

    Raises
    ------
    ModelError
        If they cannot be downloaded; no file has its name then that is not the one of the listing.
    """
    _fetch(repository, files, {name: folder / name for name in files})


def missing_in(folder: Path, files: Listing, compared: int | None = None) -> Listing:
    """Files of a listing that a folder lacks, or has otherwise; of those of more than ``compared`` bytes by size."""
    return {name: file for name, file in files.items() if not _is_right(folder / name, file, compared)}


def digest_in_cache(file: Path) -> str | None:
    """SHA-256 that a file of the cache must have; None if its path does not contain it.

    The cache keeps large files under their digest, and links to them.
    """
    blob = file.resolve()
    return (
        blob.name
        if file.is_symlink() and blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name)
        else None
    )


class _Cache:
    """One repository in the cache that all programs share, in the layout that huggingface_hub documents.

    ``blobs`` holds the bytes under their digest, ``snapshots/COMMIT`` links to them by name, and ``refs`` says which
    commit a branch or tag is.
    """

    def __init__(self, repository: Repository, cache_dir: Path | None) -> None:
        self._repository = repository
        self._cache = cache_dir or Path(constants.HF_HUB_CACHE)
        self._name = f"models--{repository.id.replace('/', '--')}"

    def held(self) -> Snapshot | None:
        """Files of the revision, where its configuration is here."""
        root, revision = self._cache / self._name, self._repository.revision
        reference = root / "refs" / revision
        commit = reference.read_text(encoding="utf-8") if reference.is_file() else revision
        snapshots = root / "snapshots"
        there = snapshots.is_dir() and commit in {path.name for path in snapshots.iterdir()}
        snapshot = snapshots / commit
        return Snapshot(snapshot, commit) if there and (snapshot / "config.json").is_file() else None

    def fill(self, revision: str, files: Listing) -> Snapshot:
        """Fetch missing and damaged files, and resolve the revision to a commit."""
        root = self._cache / self._name
        commit = self._repository.revision
        blobs = {name: root / "blobs" / (file.digest or f"{commit}-{name}") for name, file in files.items()}
        snapshot = root / "snapshots" / commit
        locks = self._cache / ".locks" / self._name
        try:
            for folder in (root / "blobs", snapshot, root / "refs", locks):
                make_folder(folder)
            with ExitStack() as held:
                missing = missing_in(snapshot, files, _COMPARED)
                for name in sorted({blobs[name].name for name in missing}):
                    held.enter_context(_waited_for(locks / f"{name}.lock"))
                # Another process may have fetched it since.
                absent = {
                    name: file
                    for name, file in missing.items()
                    if not _is_right(blobs[name], file, _COMPARED)
                }
                _fetch(self._repository, absent, blobs)
            for name in missing:
                _link(snapshot / name, Path("..", "..", "blobs", blobs[name].name))
            if revision != commit:
                reference = root / "refs" / revision
                make_folder(reference.parent)
                write_text(reference, commit)
        except (OSError, DataError) as error:
            raise ModelError(f"{root}: the cache of models cannot be filled: {error}") from error
        return Snapshot(snapshot, commit)


@contextmanager
def _waited_for(lock: Path) -> Iterator[None]:
    """Hold a lock that huggingface_hub takes too; another process that fetches the same file is waited for."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o664)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_right(path: Path, file: Expected, compared: int | None = None) -> bool:
    """Whether a file is the one of the listing; of those of more than ``compared`` bytes only the size is compared."""
    try:
        large = compared is not None and path.stat().st_size > compared
        return (replace(file, digest=None) if large else file).problem_of(path) is None
    except (OSError, StoreError):
        return False


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}.link")
    temporary.symlink_to(target)
    temporary.replace(link)


def _fetch(repository: Repository, files: Listing, places: Mapping[str, Path]) -> None:
    """Fetch files to their places, whole or not at all."""
    if not files:
        return
    from huggingface_hub import hf_hub_url  # noqa: PLC0415

    logger.info("%s: downloading %s", repository, ", ".join(files))
    _require_room(files, places)
    connection = _connection(_ATTEMPTS, _TIMEOUT_S)
    meter = Meter(repository.show, "Downloading", sum(file.size or 0 for file in files.values()), BYTES)
    for name, file in files.items():
        url = hf_hub_url(repository.id, name, revision=repository.revision, endpoint=repository.address)
        try:
            connection.fetch(url, places[name], file, meter.advance)
        except DataError as error:
            raise ModelError(
                f"{repository}: the download was interrupted ({error}); no partial file is used: "
                "run again, finished downloads are kept"
            ) from error


def _require_room(files: Listing, places: Mapping[str, Path]) -> None:
    parts = (part_of(places[name]) for name in files)
    needed = sum(file.size or 0 for file in files.values())
    needed -= sum(part.stat().st_size for part in parts if part.exists())
    folder = next(iter(places.values())).parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"{folder}: {human_size(needed)} to download, the disk has {human_size(free)} free; free space there"
        )


def _connection(attempts: int, timeout_s: float) -> Connection:
    from huggingface_hub import get_token  # noqa: PLC0415

    token = get_token()
    return Connection(attempts, _WAIT_S, timeout_s, {"Authorization": f"Bearer {token}"} if token else {})


def require_id(model: str) -> None:
    """Refuse a name that no repository can have.

    Raises
    ------
    ModelError
        The message says what is allowed.
    """
    from huggingface_hub import hf_hub_url  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        hf_hub_url(model, "config.json")
    except HFValidationError as error:
        raise ModelError(
            f"model {model!r} is neither a folder nor the id of a repository (owner/name): {error}"
        ) from error


def _listing(repository: Repository) -> tuple[Listing, str]:
    """What all files of a revision are, and its commit hash."""
    require_id(repository.id)
    if urlsplit(repository.address).scheme not in ("http", "https"):
        raise UsageError(
            f"endpoint {repository.address!r} is not allowed; use an address that starts with https://"
        )
    if constants.HF_HUB_OFFLINE:
        raise _UnreachableError("HF_HUB_OFFLINE is set")
    url = f"{repository.address}/api/models/{repository.id}/revision/{quote(repository.revision, safe='')}?blobs=true"
    try:
        text = _connection(2, _PATIENCE_S).text(url, _LARGEST_LISTING)
        return _read_listing(decoded(text.encode()))
    except AnswerError as error:
        raise _refusal(repository, error) from error
    except DataError as error:
        # The address of the listing is long, and nobody can do anything about its end.
        raise _UnreachableError(str(error).replace(url, repository.address)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{repository}: the answer of {repository.address} is not the listing of a hub ({type(error).__name__}: "
            f"{reason_of(error)}); check the endpoint"
        ) from error


def _refusal(repository: Repository, error: AnswerError) -> Exception:
    """Explain why the hub does not give its listing."""
    code = {name.lower(): value for name, value in error.headers.items()}.get("x-error-code", "")
    if code == "GatedRepo":
        return ModelError(
            f"{repository}: access must be granted by its owner; ask for it on the model's page, then log in "
            "with `hf auth login`"
        )
    if code == "RevisionNotFound":
        return ModelError(
            f"{repository}: the repository has no such revision; give a branch, a tag or a full commit hash"
        )
    # The hub answers 401 for repositories that are not there, as it does for private ones.
    if code == "RepoNotFound" or error.status in (401, 404):
        return ModelError(
            f"{repository}: there is no such folder here, and no such repository on the hub; check the "
            "spelling, or log in with `hf auth login` if it is private"
        )
    return _UnreachableError(str(error))


def _read_listing(content: Any) -> tuple[Listing, str]:
    """Check what the hub answers.

    Raises
    ------
    ValueError, TypeError, KeyError
        It is not what a hub answers.
    """
    commit = content["sha"]
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise ValueError(f"the commit is {commit!r}")
    return dict(_read_sibling(sibling) for sibling in content["siblings"]), commit


def _read_sibling(sibling: Any) -> tuple[str, Expected]:
    name, lfs = sibling["rfilename"], sibling.get("lfs")
    if not isinstance(name, str) or not is_plain(name):
        raise ValueError(f"the name of a file is {name!r}")
    size, digest = (lfs["size"], lfs["sha256"]) if lfs else (sibling.get("size"), sibling.get("blobId"))
    if size is not None and (type(size) is not int or not 0 <= size < 1 << 50):
        raise ValueError(f"the size of {name} is {size!r}")
    pattern = _SHA256 if lfs else _COMMIT
    if digest is not None and not (isinstance(digest, str) and pattern.fullmatch(digest)):
        raise ValueError(f"the digest of {name} is {digest!r}")
    return name, Expected("the hub", size, digest, "SHA-256" if lfs else "git blob id")


def _unreachable(repository: Repository, error: Exception) -> ModelError:
    return ModelError(
        f"{repository}: not in the local cache, nor a folder here, and the hub cannot be reached ({error}); "
        f"{_remedy(repository)}"
    )


def _remedy(repository: Repository) -> str:
    return (
        f"on a machine with network, run `nucpro fetch-models FOLDER --model {repository.id}`, copy FOLDER here, and "
        "name it with --protein-model or --dna-model"
    )
