"""Where a model's files are, and which bytes they are: a folder, or a repository of the Hugging Face hub.

Names come from the command line; files go to :mod:`nucpro.models.tensors` (weights),
:mod:`nucpro.models.config` (configuration) and :mod:`nucpro.models.tokens` (vocabulary). Code that a
repository may hold is never downloaded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucpro.errors import ModelError, PreflightError, RecordError, as_preflight
from nucpro.formats import made_first, remove_temporaries, replacing_problems
from nucpro.formats.opening import file_digest, is_litter, path_of, problem_of
from nucpro.formats.records import Digest, Name, read_record, write_record
from nucpro.models import hub
from nucpro.models.config import read_json
from nucpro.models.origins import base_of, problem_of_file, refuse_other_adapters
from nucpro.progress import Show, silent
from nucpro.state.checkpoint import Fingerprint
from nucpro.state.lock import hold

if TYPE_CHECKING:
    from nucpro.models.adapters import Merged
    from nucpro.models.tensors import WeightTensors

__all__ = ["ModelFiles", "available", "fetch", "locate"]

logger = logging.getLogger(__name__)

_CONFIG = "config.json"
_VOCABULARY = "vocab.txt"
_TEXT_FILES = (_CONFIG, _VOCABULARY, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# In order of preference: safetensors cannot hold code, so pickles are the last resort.
_SINGLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")
_FAIR_ESM_SUFFIX = ".pt"
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_SOURCE_RECORD = "nucpro_source.json"
_LOCK = ".fetch.lock"
_LOOKS_LIKE_PATH = re.compile(r"[./~]|.*/.*/|.*\\")


Noted = Mapping[Path, tuple[Fingerprint | None, str]]


@dataclass(frozen=True)
class ModelFiles:
    """A checkpoint on disk.

    Parameters
    ----------
    id : str
        Repository on the hub; for a folder that did not come from there, its name without its path.
    revision : str or None
        Commit hash on the hub where it is known.
    folder : Path
        Where the files are; the file itself, where it is the whole model.
    config : dict
        Content of ``config.json``, or what it would be.
    weights : tuple of Path
        The weights file, or all shards.
    sums : mapping of str to str
        SHA-256 (hex) of files as they were fetched, by name, where that is known.
    noted : mapping
        Fingerprint and sha256 of weights files that were read before; counts for a file that is as it was then.
    adapter : ModelFiles, optional
        LoRA adapter that is merged into the weights: its folder, ``adapter_config.json`` and weights file.
    """

    id: str
    revision: str | None
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    sums: Mapping[str, str] = field(default_factory=dict)
    noted: Noted = field(default_factory=dict, compare=False, repr=False)
    adapter: ModelFiles | None = None

    @property
    def vocabulary(self) -> Path | None:
        """``vocab.txt``, None where the checkpoint has none."""
        file = self.folder / _VOCABULARY
        # A link to nowhere is no reason to take another vocabulary.
        return file if os.path.lexists(file) else None

    def tensors(self) -> WeightTensors | Merged:
        """Open the weights, with the adapter merged into them.

        Returns
        -------
        mapping
            Tensors by name.

        Raises
        ------
        ModelError
            If a file is damaged, wants to do more than hold tensors, or holds an adapter of another kind or model.
        """
        # torch takes seconds to import, and who only identifies a model can do without it.
        from nucpro.models.adapters import Merged  # noqa: PLC0415
        from nucpro.models.tensors import WeightTensors  # noqa: PLC0415

        tensors = WeightTensors(self.weights)
        if self.adapter is None:
            return tensors
        adapter = self.adapter
        return Merged(
            tensors, WeightTensors(adapter.weights), adapter.folder / _ADAPTER_CONFIG, adapter.config
        )

    def digest(self) -> str:
        """Digest of the weights, by content.

        Returns
        -------
        str
            sha256 (hex) of the file. For shards: sha256 of the text that ``sha256sum SHARDS`` prints with the
            shards in the order of their names.

        Raises
        ------
        ModelError
            A file cannot be read, or is not the one that was fetched.
        """
        digests = [(digest, file.name) for file, (_, digest) in self.digests.items()]
        if len(digests) == 1:
            return digests[0][0]
        return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in digests).encode()).hexdigest()

    def adapter_identity(self) -> dict[str, str]:
        """Name and digest of the adapter: of its weights, and of what scales them; empty where there is none."""
        if self.adapter is None:
            return {}
        scale = {
            name: self.adapter.config.get(name) for name in ("lora_alpha", "alpha_pattern", "use_rslora")
        }
        content = f"{self.adapter.digest()} {json.dumps(scale, sort_keys=True)}"
        return {"adapter": self.adapter.id, "adapter_sha256": hashlib.sha256(content.encode()).hexdigest()}

    @cached_property
    def digests(self) -> Noted:
        """Fingerprint and sha256 of each weights file, which is read unless it is as it was noted."""
        return {file: self._noted_or_read(file) for file in self.weights}

    def require_unchanged(self) -> None:
        """Check that the weights are the files whose digest :meth:`digest` returned.

        Raises
        ------
        ModelError
            A file was replaced or changed since.
        """
        adapted = self.adapter.digests if self.adapter else {}
        for file, (before, _) in {**self.digests, **adapted}.items():
            if Fingerprint.of(file) != before:
                raise ModelError(
                    f"{file}: replaced at the start of the run; run again when the model's files are complete"
                )

    def __getstate__(self) -> dict[str, Any]:
        # Another process reads again what is not the same file there.
        return {**{one.name: getattr(self, one.name) for one in fields(self)}, "noted": self.digests}

    def _noted_or_read(self, file: Path) -> tuple[Fingerprint | None, str]:
        # Taken before anything is read, so that no later change is missed.
        fingerprint = Fingerprint.of(file)
        noted = self.noted.get(file)
        digest = noted[1] if noted and noted[0] == fingerprint else file_digest(file, ModelError)
        if (in_cache := hub.digest_in_cache(file)) not in (None, digest):
            raise ModelError(
                f"{file}: is damaged (its SHA-256 is not {in_cache}); remove {file.resolve()}, then run again"
            )
        if self.sums.get(file.name, digest) != digest:
            raise _changed(file)
        return fingerprint, digest


def locate(
    model: str,
    *,
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    offline: bool = False,
    show: Show = silent,
) -> ModelFiles:
    """Find a model, and download it if it is missing.

    Parameters
    ----------
    model : str
        A local folder of a model or of a LoRA adapter, a checkpoint of fair-esm (``esm2_t33_650M_UR50D.pt``), or the
        id of a repository on the hub (``Synthyra/FastESM2_650``).
    revision : str or None
        Branch, tag or commit of the repository; None for its main branch. A folder has none.
    adapter : path, optional
        Folder of a LoRA adapter to merge into the model, whatever base model its configuration names.
    cache_dir : Path or None
        Cache of downloads; None for the one that all programs share.
    endpoint : str or None
        Address of the hub; None for the usual one.
    offline : bool
        Use the cache only, without network access.
    show : callable
        Takes the progress of a download, in bytes.

    Returns
    -------
    ModelFiles
        All files present; weights not read yet.

    Raises
    ------
    ModelError
        If the model cannot be found or downloaded, or lacks files.
    """
    if not model.strip():
        raise ModelError(
            f"model {model!r}: the name is empty; give a folder, or the id of a repository on the hub"
        )
    find = partial(locate, cache_dir=cache_dir, endpoint=endpoint, offline=offline, show=show)
    if adapter is not None:
        # Workers in other folders find it by its absolute path.
        return _adapted(find(model, revision=revision), _adapter(path_of(adapter).absolute()))
    folder = path_of(model)
    if _is_folder(folder):
        if not os.path.lexists(folder / _ADAPTER_CONFIG):
            return _local(folder, revision)
        _refuse_revision(folder, "folder", revision)
        found_adapter = _adapter(folder)
        base, base_revision = base_of(folder / _ADAPTER_CONFIG, found_adapter.config)
        try:
            found = find(base, revision=base_revision)
        except ModelError as error:
            raise ModelError(
                f"{folder / _ADAPTER_CONFIG}: its base model cannot be found ({error}); base_model_name_or_path there "
                "may name another folder or hub id of the same model"
            ) from error
        return _adapted(found, found_adapter)
    if folder.suffix == _FAIR_ESM_SUFFIX and os.path.lexists(folder):
        return _one_file(folder, revision)
    repository = _repository(model, revision, endpoint, show)
    snapshot = hub.snapshot(repository, cache_dir=cache_dir, offline=offline, choose=_wanted_files)
    return _read_folder(snapshot.folder, model, snapshot.commit, {})


def available(model: str, *, revision: str | None = None, endpoint: str | None = None) -> str:
    """Commit of a model that could be downloaded now; asks the hub, and downloads nothing.

    Parameters
    ----------
    model, revision, endpoint : str
        As in :func:`locate`.

    Raises
    ------
    ModelError
        If the hub cannot be reached, or has no such model.
    """
    return hub.commit_of(_repository(model, revision, endpoint))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise ModelError(f"{path}: {problem_of(path, error)}") from error


def _repository(
    model: str, revision: str | None, endpoint: str | None, show: Show = silent
) -> hub.Repository:
    """Repository of a name that is no folder."""
    if os.path.lexists(path := path_of(model)):
        raise ModelError(problem_of_file(path))
    if _LOOKS_LIKE_PATH.match(model):
        raise ModelError(
            f"model {model!r}: there is no such folder; give a folder with {_CONFIG} and weights, "
            "or the id of a repository on the Hugging Face hub"
        )
    return hub.Repository(model, revision or "main", endpoint, show)


def fetch(
    model: str,
    folder: Path,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    show: Show = silent,
    replace: bool = False,
) -> ModelFiles:
    """Fill a folder with a model, to be carried to a machine without network.

    The folder remembers the repository and commit, so results made from it and from the hub count as equal.

    Parameters
    ----------
    model : str
        Id of a repository on the hub.
    folder : Path
        Where to put it; made if it is not there. Files that are already whole are not downloaded again.
    revision : str or None
        Branch, tag or commit; None for the main branch.
    endpoint : str or None
        Address of the hub; None for the usual one.
    show : callable
        Takes the progress of the download, in bytes.
    replace : bool
        Replace files of the same names that were not fetched.

    Returns
    -------
    ModelFiles
        The filled folder, as :func:`locate` finds it.

    Raises
    ------
    ModelError
        If the model cannot be downloaded, or lacks files.
    PreflightError
        If the model is a folder already or its name is not allowed, or the folder cannot be written.
    UsageError
        If the address of the hub is no address.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise PreflightError([f"{folder}: is a file, not a folder; name a folder for the model"])
    if os.path.lexists(path := path_of(model)):
        raise PreflightError([f"{path}: exists already; give it with --protein-model or --dna-model"])
    with as_preflight(ModelError):
        hub.require_id(model)
    repository = hub.Repository(model, revision or "main", endpoint, show)
    pinned, listing = hub.pin(repository)
    chosen = {name: listing[name] for name in _wanted_files(list(listing))}
    with made_first(folder), hold(folder / _LOCK):
        remove_temporaries(folder)
        missing = hub.missing_in(folder, chosen)
        source = _source_of(folder)
        problems = replacing_problems([folder / name for name in missing], source.made, replace=replace)
        if problems:
            raise PreflightError(problems)
        # Files of another commit may come in: their origin is recorded only when all are there.
        write_record(folder / _SOURCE_RECORD, _Source(files=dict.fromkeys((*source.files, *chosen))))
        hub.download_into(pinned, folder, missing)
        files = _local(folder, None)
        others = [file.name for file in files.weights if file.name not in chosen]
        if others:
            raise ModelError(
                f"{folder}: holds {', '.join(others)}, which is not part of {repository}; give an empty folder"
            )
        sums = {name: file_digest(folder / name, ModelError) for name in chosen}
        write_record(folder / _SOURCE_RECORD, _Source(model, pinned.revision, sums))
    return _local(folder, None)


def _adapter(folder: Path) -> ModelFiles:
    """Files of a LoRA adapter."""
    file = folder / _ADAPTER_CONFIG
    if not os.path.lexists(file):
        raise ModelError(
            f"{folder}: holds no LoRA adapter ({_ADAPTER_CONFIG} is missing); name a folder that save_pretrained of "
            "PEFT wrote"
        )
    config = read_json(file)
    refuse_other_adapters(file, config)
    present = [path.name for path in folder.iterdir()]
    if whole := sorted({*_SINGLE_WEIGHTS, *(f"{name}.index.json" for name in _SINGLE_WEIGHTS)} & {*present}):
        raise ModelError(
            f"{folder}: holds a model ({whole[0]}) and an adapter ({_ADAPTER_CONFIG}); keep each in its own folder"
        )
    weights = [name for name in _ADAPTER_WEIGHTS if name in present]
    if not weights:
        raise _missing(folder, _ADAPTER_WEIGHTS[0], sorted(present))
    return ModelFiles(folder.resolve().name, None, folder, config, (folder / weights[0],))


def _adapted(base: ModelFiles, adapter: ModelFiles) -> ModelFiles:
    if base.adapter is not None:
        raise ModelError(
            f"{adapter.folder}: its base model {base.adapter.folder} is an adapter too; merge that one with PEFT "
            "(merge_and_unload), save the model, and name that folder"
        )
    return replace(base, adapter=adapter)


def _one_file(file: Path, revision: str | None) -> ModelFiles:
    """Take a checkpoint of fair-esm, which is a model without anything beside it."""
    from nucpro.models.tensors import WeightTensors  # noqa: PLC0415

    _refuse_revision(file, "file", revision)
    fair_esm = WeightTensors((file,)).fair_esm
    if fair_esm is None:
        raise ModelError(problem_of_file(file))
    return ModelFiles(file.stem, None, file, fair_esm.config, (file,))


def _refuse_revision(path: Path, what: str, revision: str | None) -> None:
    if revision is not None:
        raise ModelError(
            f"{path}: a {what} has no revisions, but {revision!r} was asked for; leave the revision out, "
            "or give the id of a repository on the Hugging Face hub"
        )


def _local(folder: Path, revision: str | None) -> ModelFiles:
    _refuse_revision(folder, "folder", revision)
    source = _source_of(folder)
    sums = {name: digest for name, digest in source.files.items() if digest is not None}
    for file in _TEXT_FILES:
        if file in sums and file_digest(folder / file, ModelError) != sums[file]:
            raise _changed(folder / file)
    return _read_folder(folder, source.id or folder.resolve().name, source.revision, sums)


@dataclass(frozen=True)
class _Source:
    """Where the files of a folder are from: repository, commit, and their SHA-256, None while they are fetched.

    All may be unknown: earlier versions recorded no files.
    """

    id: Name | None = None
    revision: Name | None = None
    files: Mapping[str, Digest | None] = field(default_factory=dict)

    def made(self, path: Path) -> bool:
        """Whether a file of the folder was fetched into it."""
        return path.name in self.files or (self.id is not None and not self.files)


def _source_of(folder: Path) -> _Source:
    remedy = "fetch it again (nucpro fetch-models FOLDER)"
    try:
        kept = read_record(folder / _SOURCE_RECORD, _Source, "the record of the model", remedy)
    except RecordError as error:
        raise ModelError(str(error)) from error
    return kept.content if kept else _Source()


def _changed(file: Path) -> ModelError:
    return ModelError(
        f"{file}: is not the file that was fetched: it is damaged, or was changed; fetch the model again "
        f"(nucpro fetch-models FOLDER), or remove {_SOURCE_RECORD} beside it if you changed it on purpose"
    )


def _read_folder(folder: Path, name: str, commit: str | None, sums: Mapping[str, str]) -> ModelFiles:
    try:
        present = sorted(path.name for path in folder.iterdir() if not is_litter(path.name))
    except OSError as error:
        raise ModelError(f"{folder}: {problem_of(folder, error)}") from error
    if _CONFIG not in present:
        if single := next((file for file in present if file.endswith(_FAIR_ESM_SUFFIX)), None):
            raise ModelError(
                f"{folder}: no {_CONFIG} beside {single}; if that is a checkpoint of fair-esm, give the file itself: "
                f"{folder / single}"
            )
        raise _missing(folder, _CONFIG, present)
    config = read_json(folder / _CONFIG)
    weights = tuple(folder / file for file in _weight_files(folder, present))
    return ModelFiles(name, commit, folder, config, weights, sums)


def _weight_files(folder: Path, present: Sequence[str]) -> list[str]:
    chosen = _choose_weights(present)
    if not chosen:
        raise _missing(folder, "weights (model.safetensors or pytorch_model.bin)", present)
    if not chosen[0].endswith(".json"):
        return chosen
    shards = _shards(folder / chosen[0])
    absent = [shard for shard in shards if shard not in present]
    if absent:
        raise _missing(folder, f"shard(s) {', '.join(absent)} that {chosen[0]} names", present)
    return shards


def _choose_weights(names: Sequence[str]) -> list[str]:
    """Choose the weights file, or the index of a sharded checkpoint; empty if there is none."""
    for single in _SINGLE_WEIGHTS:
        for candidate in (single, f"{single}.index.json"):
            if candidate in names:
                return [candidate]
    for suffix in _WEIGHT_SUFFIXES:
        fitting = [name for name in names if name.endswith(suffix) and "/" not in name]
        if len(fitting) > 1:
            raise ModelError(
                f"more than one file could be the weights: {', '.join(sorted(fitting))}; "
                f"name the right one {_SINGLE_WEIGHTS[0]} (or {_SINGLE_WEIGHTS[1]} if it is a pickle)"
            )
        if fitting:
            return fitting
    return []


def _shards(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: no weight_map in it; fetch the model again (nucpro fetch-models FOLDER)")
    shards = sorted({str(shard) for shard in weight_map.values()})
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(_WEIGHT_SUFFIXES):
            raise ModelError(
                f"{index}: names {shard!r} as a shard; a shard is a weights file in the same folder"
            )
    return shards


def _wanted_files(names: Sequence[str]) -> list[str]:
    """Files of a repository that are worth downloading: configuration, tokenizer, one set of weights."""
    chosen = _choose_weights(names)
    if chosen and chosen[0].endswith(".json"):
        stem, suffix = chosen[0].removesuffix(".index.json").rsplit(".", 1)
        chosen += [name for name in names if re.fullmatch(rf"{stem}-\d+-of-\d+\.{suffix}", name)]
    return [name for name in _TEXT_FILES if name in names] + chosen


def _missing(folder: Path, what: str, present: Sequence[str]) -> ModelError:
    shown = ", ".join(present[:8]) or "nothing"
    return ModelError(
        f"{folder}: no {what}; the folder holds {shown}; "
        "fill it with `nucpro fetch-models FOLDER`, or give another folder or the id of a repository"
    )
