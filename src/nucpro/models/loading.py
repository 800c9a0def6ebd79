"""Strict loading: every parameter of an encoder found in a checkpoint, every tensor in it explained.

Tensors come from :mod:`nucpro.models.tensors` or a model object, by the names that transformers gives them;
each encoder defines which of them make each of its parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from nucpro.errors import ModelError, first_few

__all__ = ["HEADS", "Checkpoint", "build", "draw", "empty_embedding"]

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)

HEADS = (
    "classification_head.",
    "classifier.",
    "cls.",
    "contact_head.",
    "lm_head.",
    "pooler.",
    "predictions.",
    "qa_outputs.",
    "regressor.",
    "score.",
    "v_head.",
)
"""What transformers, fair-esm, PEFT and TRL call the heads of a task: they follow the encoder, and change no vector."""
_SHOWN = 3
_READERS = 8
# Names that TensorFlow gave to the parts of a layer norm; transformers still writes them for some models.
_OLD_NORM_NAMES = ((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias"))


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors with the words that errors need.

    Parameters
    ----------
    source : str
        What the tensors come from: the model's id, or the class of a model object.
    tensors : mapping
        Tensors by name.
    prefix : str
        What the names may start with when the encoder is part of a larger model (``esm.``).
    """

    source: str
    tensors: Mapping[str, torch.Tensor]
    prefix: str

    def names(self) -> dict[str, str]:
        """Name in the checkpoint, by standard name: without prefix, norms with ``weight`` and ``bias``.

        Returns
        -------
        dict
            One entry per tensor.

        Raises
        ------
        ModelError
            If a tensor has two names.
        """
        names: dict[str, str] = {}
        for name in self.tensors:
            standard = name.removeprefix(self.prefix)
            for old, new in _OLD_NORM_NAMES:
                standard = standard.replace(old, new)
            if standard in names:
                raise ModelError(
                    f"{self.source}: a tensor has two names, {names[standard]} and {name}; "
                    "save the model again"
                )
            names[standard] = name
        return names

    def refuse_unexplained(self, wanted: Iterable[str], is_left_over: Mapping[str, bool]) -> None:
        """Compare the tensors that exist with those that must exist.

        Parameters
        ----------
        wanted : iterable of str
            Standard names that make the encoder.
        is_left_over : mapping
            For each standard name of the checkpoint: whether it is known not to matter.

        Raises
        ------
        ModelError
            If a wanted tensor is missing, or one is there that nothing explains.
        """
        expected = set(wanted)
        missing = sorted(expected - is_left_over.keys())
        if missing:
            raise ModelError(
                f"{self.source}: {first_few(missing, _SHOWN)} missing from the weights, which hold {len(is_left_over)} "
                "tensors; config.json and weights must belong together: "
                "fetch the model again (nucpro fetch-models FOLDER)"
            )
        surplus = sorted(name for name, known in is_left_over.items() if not known and name not in expected)
        if surplus:
            raise ModelError(
                f"{self.source}: {first_few(surplus, _SHOWN)} in the weights have no place in the model that "
                "config.json describes; leaving them out could change the vectors: the checkpoint is refused"
            )

    def require_shape(self, shape: Sequence[int], parts: list[str]) -> None:
        """Compare tensors with the parameter that they are to fill, before it takes memory.

        Parameters
        ----------
        shape : sequence of int
            Shape of the parameter, as the configuration makes it.
        parts : list of str
            Full names of the tensors; each gives an equal share of the rows.

        Raises
        ------
        ModelError
            If a tensor has another shape, or is not made of floats.
        """
        expected = (shape[0] // len(parts), *shape[1:])
        for part in parts:
            tensor = self.tensors[part]
            if tensor.shape != expected or not tensor.is_floating_point():
                raise ModelError(
                    f"{self.source}: {part} is {_shown(tensor)}, but config.json makes it floats of shape "
                    f"{expected}; fetch the model again (nucpro fetch-models FOLDER)"
                )

    @torch.inference_mode()  # threads do not inherit it, and the parameter may have been made in it
    def fill(self, parameter: nn.Parameter, parts: list[str]) -> None:
        """Copy tensors into a parameter, one below the other.

        Parameters
        ----------
        parameter : torch.nn.Parameter
            Filled in place, converted to its element type and device.
        parts : list of str
            Full names of the tensors; each gives an equal share of the rows.

        Raises
        ------
        ModelError
            If a tensor holds values that are not finite.
        """
        rows = parameter.shape[0] // len(parts)
        for target, part in zip(torch.split(parameter.data, rows), parts, strict=True):
            tensor = self.tensors[part]
            # Moved first: a GPU converts gigabytes at once, a CPU takes seconds.
            target.copy_(tensor.to(target.device))
            if not bool(torch.isfinite(target).all()):
                raise self._not_finite(part, tensor, target.dtype)

    def _not_finite(self, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> ModelError:
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            return ModelError(
                f"{self.source}: {name} holds {bad} of {tensor.numel()} values that are NaN or infinite; "
                "the weights are damaged: fetch the model again (nucpro fetch-models FOLDER)"
            )
        largest = float(tensor.abs().max())
        remedy = "fetch the model again" if dtype is torch.float32 else "ask for the precision fp32"
        return ModelError(
            f"{self.source}: {name} holds {largest:g}, which is too large for {dtype}; {remedy}"
        )


def build(
    make: Callable[[], Model],
    checkpoint: Checkpoint,
    parts: Mapping[str, list[str]],
    is_left_over: Callable[[str], bool],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Model:
    """Make an encoder and fill all its parameters from a checkpoint.

    Parameters
    ----------
    make : callable
        Makes the encoder, with any weights.
    checkpoint : Checkpoint
        Where the tensors are.
    parts : mapping
        For each parameter of the encoder: standard names of the tensors that make it, one below the other.
    is_left_over : callable
        Whether a standard name is known not to matter.
    device, dtype : torch.device, torch.dtype
        Of the parameters. On a CPU, bfloat16 is for the weights of matrix products only, and the rest is float32.

    Returns
    -------
    torch.nn.Module
        The encoder, for inference only.

    Raises
    ------
    ModelError
        If a tensor is missing, does not fit, or is there without reason.
    """
    names = checkpoint.names()
    wanted = [part for group in parts.values() for part in group]
    heads = {name for name in names if name.startswith(HEADS)}
    checkpoint.refuse_unexplained(wanted, {name: name in heads or is_left_over(name) for name in names})
    if heads:
        unused = ", ".join(sorted({name.partition(".")[0] for name in heads}))
        logger.info("%s: heads that vectors do not need are left out: %s", checkpoint.source, unused)
    model = _without_weights(make)
    sources = {name: [names[part] for part in parts[name]] for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        checkpoint.require_shape(parameter.shape, sources[name])
    _allocate(model, device, dtype)
    # Several at a time: reading pages of a mapped file in one thread is slower than any disk or link to a GPU.
    with ThreadPoolExecutor(_READERS) as readers:
        filling = [
            readers.submit(checkpoint.fill, parameter, sources[name])
            for name, parameter in model.named_parameters()
        ]
        for filled in filling:
            filled.result()
    return model


def draw(make: Callable[[], Model], *, device: torch.device, dtype: torch.dtype) -> Model:
    """Make an encoder with random weights: as fast as any other of its shape, and of no other use.

    Parameters
    ----------
    make : callable
        Makes the encoder, with any weights.
    device, dtype : torch.device, torch.dtype
        As in :func:`build`.

    Returns
    -------
    torch.nn.Module
        Activations keep their size from layer to layer: products have weights of variance 1 / columns, norms change
        nothing, and biases are zero.
    """
    model = _allocate(_without_weights(make), device, dtype)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, parameter.shape[1] ** -0.5)
    for part in model.modules():
        bias = getattr(part, "bias", None)
        if isinstance(part, nn.LayerNorm):
            part.weight.data.fill_(1.0)
        if isinstance(bias, nn.Parameter):
            bias.data.zero_()
    return model


def _without_weights(make: Callable[[], Model]) -> Model:
    """On the meta device: no memory is spent on random weights that are then overwritten."""
    with torch.device("meta"):
        return make().requires_grad_(False).eval()


def _allocate(model: Model, device: torch.device, dtype: torch.dtype) -> Model:
    """Give all parameters memory, with undefined values."""
    # Not Module.to_empty, for which torch imports a library of symbolic mathematics: one second.
    kinds = _element_types(model, device, dtype)
    empty = {n: torch.empty(p.shape, dtype=kinds[n], device=device) for n, p in model.named_parameters()}
    model.load_state_dict(empty, assign=True)
    return model


def _element_types(model: nn.Module, device: torch.device, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Element type of each parameter.

    Processors multiply bfloat16 matrices several times as fast as float32 ones, and do nothing else faster in it.
    """
    rest = torch.float32 if device.type == "cpu" and dtype == torch.bfloat16 else dtype
    products = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    return {name: dtype if name in products else rest for name, _ in model.named_parameters()}


def empty_embedding(rows: int, width: int) -> nn.Embedding:
    """Embedding with undefined weights.

    The usual constructor draws them from a normal distribution, for which torch imports its whole compiler on the
    device that :func:`build` makes encoders on: five seconds.

    Parameters
    ----------
    rows, width : int
        Tokens, and columns of the vector of each.

    Returns
    -------
    torch.nn.Embedding
        To be filled.
    """
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


def _shown(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
