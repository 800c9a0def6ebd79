"""Which model and options made a vector, as plain values for the ``meta`` of output files.

Two runs whose descriptions are equal make equal vectors up to rounding: batch size, device and kernels are
not in them, because they must not matter. They go to the ``meta`` that is compared when a run resumes.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, cast

import torch
from torch import nn

from nucpro.models.encoder import Config
from nucpro.models.packing import PooledSpan
from nucpro.models.tokens import Tokenizer
from nucpro.models.weights import ModelFiles

__all__ = ["WeightsIdentity", "describe_model", "describe_options"]


@dataclass(frozen=True)
class WeightsIdentity:
    """Which weights were loaded.

    Parameters
    ----------
    id : str
        Repository on the hub, or the name of a folder, never its path.
    revision : str or None
        Commit hash where it is known.
    weights_sha256 : str
        Digest of the weights: of the files (:meth:`ModelFiles.digest`), or of the tensors of a model object.
    """

    id: str
    revision: str | None
    weights_sha256: str

    @classmethod
    def of_files(cls, files: ModelFiles) -> WeightsIdentity:
        """Identify a checkpoint on disk; reads all of its bytes once.

        Parameters
        ----------
        files : ModelFiles
            The checkpoint.

        Returns
        -------
        WeightsIdentity
            Its identity.
        """
        return cls(files.id, files.revision, files.digest())

    @classmethod
    def of_object(cls, model: nn.Module) -> WeightsIdentity:
        """Identify a Hugging Face model object by the tensors that it holds now.

        Parameters
        ----------
        model : torch.nn.Module
            The object; its ``.config`` may know where it came from.

        Returns
        -------
        WeightsIdentity
            Its identity. The digest covers name, element type, shape and bytes of each tensor, so it differs
            from that of the files that the object was loaded from.
        """
        config = getattr(model, "config", None)
        name = PurePath(getattr(config, "_name_or_path", "") or type(model).__name__)
        is_repository = len(name.parts) == 2 and not name.is_absolute()
        commit = getattr(config, "_commit_hash", None)
        return cls(str(name) if is_repository else name.name, commit, _tensor_digest(model))


def describe_model(
    weights: WeightsIdentity, config: Config, tokenizer: Tokenizer
) -> dict[str, str | int | float | None]:
    """Plain values that say which model makes the vectors.

    Parameters
    ----------
    weights : WeightsIdentity
        Its weights.
    config : Config
        Its shape, and the options that it carries (token dropout).
    tokenizer : Tokenizer
        Its tokenizer.

    Returns
    -------
    dict
        ``id``, ``revision``, ``weights_sha256``, the architecture's name and numbers, a digest of the vocabulary.
    """
    numbers: dict[str, Any] = asdict(cast(Any, config))
    return {
        **asdict(weights),
        "architecture": config.architecture,
        **numbers,
        "vocabulary_sha256": tokenizer.digest(),
    }


def describe_options(precision: str, span: PooledSpan, limit: int) -> dict[str, str | int]:
    """Plain values of the options that change vectors.

    Parameters
    ----------
    precision : str
        ``fp32``, ``fp16`` or ``bf16``.
    span : PooledSpan
        Tokens that a vector is the mean of.
    limit : int
        Where longer sequences are cut, in residues or bases.

    Returns
    -------
    dict
        ``precision``, ``pooling`` and ``longest_input``.
    """
    return {"precision": precision, "pooling": span.name, "longest_input": limit}


def _tensor_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
