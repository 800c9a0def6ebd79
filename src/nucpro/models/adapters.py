"""LoRA adapters as PEFT saves them: checked, and merged into the weights of their base model when these are read.

A folder with an adapter comes from :mod:`nucpro.models.weights`; the merged tensors go to the loaders of the encoders.
Every merged weight is ``W + scale * B @ A``, computed in float32 (Hu et al., LoRA, 2021).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nucpro.errors import ModelError, first_few
from nucpro.models.loading import HEADS

__all__ = ["Merged", "base_of", "refuse_other_adapters"]

_CHANGED_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Ways to begin the training that change the base weights, which the adapter alone does not tell."""
_NOT_PLAIN = (
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "megatron_config",
)
"""Fields of PEFT's ``LoraConfig`` that add something to plain LoRA."""
_WRAPPERS = re.compile(r"^(?:base_model\.model\.)?(?:esm\.|bert\.)?")
_MATRIX = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
_MERGE_IT = "merge it with PEFT (merge_and_unload), save the model, and give that folder"
_SHOWN = 3


def base_of(file: Path, config: Mapping[str, Any]) -> tuple[str, str | None]:
    """Name of an adapter's base model, as ``adapter_config.json`` says it, and its revision.

    Raises
    ------
    ModelError
        It does not say.
    """
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base.strip() or not isinstance(revision, str | None):
        raise ModelError(
            f"{file}: base_model_name_or_path is {base!r} (revision {revision!r}); write the folder or hub id of the "
            "base model there"
        )
    beside = file.parent / base
    return str(beside) if not Path(base).expanduser().exists() and beside.exists() else base, revision


def refuse_other_adapters(file: Path, config: Mapping[str, Any]) -> None:
    """Raise where an adapter is more, or other, than plain LoRA on linear layers.

    Raises
    ------
    ModelError
        It names the field of ``adapter_config.json``.
    """
    others = {name: config[name] for name in _NOT_PLAIN if config.get(name)}
    if config.get("peft_type") != "LORA":
        others["peft_type"] = config.get("peft_type")
    if config.get("bias", "none") != "none":
        others["bias"] = config["bias"]
    if str(config.get("init_lora_weights")).lower().startswith(_CHANGED_BASE):
        others["init_lora_weights"] = config["init_lora_weights"]
    for name, value in others.items():
        raise ModelError(
            f"{file}: {name} is {value!r}, and only plain LoRA on linear layers can be merged here; {_MERGE_IT}"
        )


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
        The adapter is no plain LoRA, or holds tensors that do not fit the base model.
    """

    def __init__(
        self,
        base: Mapping[str, torch.Tensor],
        adapter: Mapping[str, torch.Tensor],
        file: Path,
        config: Mapping[str, Any],
    ) -> None:
        refuse_other_adapters(file, config)
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
    alphas = {"": config.get("lora_alpha", 8), **patterns}
    for name, alpha in alphas.items():
        if not re.fullmatch(r"[\w.]*", name) or type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise ModelError(
                f"{file}: lora_alpha or alpha_pattern holds {name!r}: {alpha!r}; allowed are numbers, and plain names "
                f"of modules; {_MERGE_IT}"
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
            f", and only plain LoRA on linear layers can be merged here; {_MERGE_IT}"
        )
    return pairs
