"""LoRA adapters as PEFT saves them: checked, and merged into the weights of their base model when these are read.

A folder with an adapter comes from :mod:`nucpro.models.weights`; the merged tensors go to the loaders of the encoders.
Every merged weight is ``W + scale * B @ A``, computed in float32 (Hu et al., LoRA, 2021).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nucpro.errors import ModelError, first_few
from nucpro.models.config import shown
from nucpro.models.loading import HEADS
from nucpro.models.origins import MERGE_IT

__all__ = ["Merged"]

_WRAPPERS = re.compile(r"^(?:base_model\.model\.)?(?:esm\.|bert\.)?")
_MATRIX = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
_SHOWN = 3


class Merged(Mapping[str, torch.Tensor]):
    """Tensors of a base model, with an adapter merged into each when it is asked for.

    Parameters
    ----------
    base, adapter : mapping
        Tensors by name.
    file : Path
        The adapter's ``adapter_config.json``.
    config : mapping
        Its content.

    Raises
    ------
    ModelError
        The adapter holds tensors that do not fit the base model, or that are no matrices of LoRA.
    """

    def __init__(
        self,
        base: Mapping[str, torch.Tensor],
        adapter: Mapping[str, torch.Tensor],
        file: Path,
        config: Mapping[str, Any],
    ) -> None:
        self._base, self._adapter, self._file = base, adapter, file
        self._alphas = _alphas(file, config)
        self._is_stabilised = bool(config.get("use_rslora"))
        weights = {_WRAPPERS.sub("", name): name for name in base}
        self._pairs: dict[str, tuple[str, Mapping[str, str]]] = {}
        for module, names in _pairs(file, adapter).items():
            weight = weights.get(f"{module}.weight")
            if weight is None:
                raise ModelError(
                    f"{file}: adapts {module}, which the base model lacks; name its own base model"
                )
            self._pairs[weight] = module, names

    def __getitem__(self, name: str) -> torch.Tensor:
        weight, pair = self._base[name], self._pairs.get(name)
        return self._merged(weight, *pair) if pair else weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)

    def _merged(self, weight: torch.Tensor, module: str, names: Mapping[str, str]) -> torch.Tensor:
        down, up = (self._adapter[names[letter]].float() for letter in "AB")
        rank = down.shape[0]
        if (*up.shape, *down.shape) != (weight.shape[0], rank, rank, *weight.shape[1:]) or rank == 0:
            raise ModelError(
                f"{self._file}: {module} has lora_B {tuple(up.shape)} and lora_A {tuple(down.shape)}, but the base "
                f"model's weight is {tuple(weight.shape)}; name its own base model"
            )
        scale = self._alpha(module) / (math.sqrt(rank) if self._is_stabilised else rank)
        return weight.float() + scale * (up @ down)

    def _alpha(self, module: str) -> float:
        """Numerator of the scale; the first pattern that ends the module's name counts, as in PEFT."""
        patterns = (key for key in self._alphas if key and f".{module}".endswith(f".{key}"))
        return self._alphas[next(patterns, "")]


def _alphas(file: Path, config: Mapping[str, Any]) -> dict[str, float]:
    """``lora_alpha`` by the end of a module's name; the one of all others is that of the empty end."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        patterns = {"alpha_pattern": shown(patterns)}
    alphas = {"": config.get("lora_alpha", 8), **patterns}
    for name, alpha in alphas.items():
        is_number = type(alpha) in (int, float) and abs(alpha) <= sys.float_info.max
        if not is_number or not re.fullmatch(r"[\w.]*", name):
            raise ModelError(
                f"{file}: lora_alpha or alpha_pattern holds {shown(name)}: {shown(alpha)}; allowed are numbers, and "
                f"plain names of modules; {MERGE_IT}"
            )
    return alphas


def _pairs(file: Path, adapter: Mapping[str, torch.Tensor]) -> dict[str, dict[str, str]]:
    """Names of both matrices, A and B, by the name of the adapted module; heads are left out.

    Raises
    ------
    ModelError
        There are other tensors than those of plain LoRA, or none.
    """
    pairs: dict[str, dict[str, str]] = {}
    others = []
    for name in adapter:
        bare = _WRAPPERS.sub("", name)
        if matrix := _MATRIX.fullmatch(bare):
            pairs.setdefault(matrix[1], {})[matrix[2]] = name
        elif not bare.startswith(HEADS):
            others.append(name)
    pairs = {module: names for module, names in pairs.items() if not f"{module}.".startswith(HEADS)}
    others += [name for names in pairs.values() if len(names) == 1 for name in names.values()]
    if others or not pairs:
        raise ModelError(
            f"{file}: the adapter holds {first_few(sorted(others), _SHOWN) if others else 'no matrices of an encoder'}"
            f", and only plain LoRA on linear layers can be merged here; {MERGE_IT}"
        )
    return pairs
