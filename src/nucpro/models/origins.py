"""What a file is that was given as a model: fair-esm's checkpoint, an adapter's configuration, or words for a refusal.

Files come from :mod:`nucpro.models.weights`, tensors by fair-esm's names from :mod:`nucpro.models.tensors`. fair-esm
(facebookresearch/esm) keeps a whole model in one ``.pt`` file, without a configuration beside it and under names of its
own; here both are put as transformers has them. Nothing here needs torch.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nucpro.errors import ModelError
from nucpro.formats.opening import looks_like, open_input, path_of
from nucpro.models.config import shown

__all__ = ["MERGE_IT", "FairEsm", "base_of", "problem_of_file", "read_fair_esm", "refuse_other_adapters"]

_LOOKED_AT = 1 << 20
_A_FOLDER = "give its folder, with config.json and the tokenizer beside it"
_STEMS = re.compile(r"^(?:model\.)?(?:encoder\.sentence_encoder\.|encoder\.(?=lm_head\.))")
"""What published checkpoints put before the names of fair-esm's own classes."""
_LAYER = re.compile(r"layers\.(\d+)\.(\w+(?:\.[a-z]+_proj|\.rot_emb)?)\.(\w+)")
_PARTS = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn.rot_emb": "attention.self.rotary_embeddings",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}
"""Parts of a layer: fair-esm's name, and transformers'."""
_EMBEDDING = "embeddings.word_embeddings.weight"
_FINAL_NORM = "encoder.emb_layer_norm_after.weight"
_FIRST_LAYER = "encoder.layer.0.intermediate.dense.weight"
_FREQUENCIES = "encoder.layer.0.attention.self.rotary_embeddings.inv_freq"
_OTHER_MODELS = ("embed_positions", "emb_layer_norm_before", "row_self_attention", "msa_position")
"""Parts of ESM-1, ESM-1b, ESM-1v and the MSA Transformer, which ESM-2 does not have."""
_CHANGED_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Ways to begin the training that change the base weights, which the adapter alone does not contain."""
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
MERGE_IT = "merge it with PEFT (merge_and_unload), save the model, and give that folder"


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class FairEsm:
    """A checkpoint of fair-esm, as transformers would have it.

    Parameters
    ----------
    names : mapping of str to str
        Name in the file of each tensor, by transformers' name.
    config : dict
        Content of its ``config.json``.
    """

    names: Mapping[str, str]
    config: dict[str, Any]


def read_fair_esm(
    file: Path, tensors: Mapping[str, _Shaped], content: Mapping[Any, object]
) -> FairEsm | None:
    """How to read a checkpoint of fair-esm; None if it is not one.

    Parameters
    ----------
    file : Path
        Where it is from, for messages.
    tensors : mapping of str to tensor
        Its tensors by name.
    content : mapping
        Content of the file; the training options contain the number of heads.

    Raises
    ------
    ModelError
        It is from fair-esm, but no ESM-2, or not the whole of one.
    """
    names = {_renamed(name): name for name in tensors}
    shapes = {name: tuple(tensors[told].shape) for name, told in names.items()}
    if {_STEMS.sub("", name).partition(".")[0] for name in tensors} == {"contact_head"}:
        whole = file.with_name(file.name.replace("-contact-regression", ""))
        raise ModelError(
            f"{file}: holds the contact head of a fair-esm model alone; give the model itself: {whole}"
        )
    if all(told == name for name, told in names.items()) or _EMBEDDING not in names:
        return None
    if any(part in name for name in names for part in _OTHER_MODELS) or not names.keys() >= {
        _FIRST_LAYER,
        _FINAL_NORM,
    }:
        raise ModelError(
            f"{file}: is a checkpoint of fair-esm, but no ESM-2 (ESM-1, ESM-1b, ESM-1v, the MSA Transformer and others "
            "are not supported); name an ESM-2, such as esm2_t33_650M_UR50D.pt"
        )
    return FairEsm(names, _config(file, shapes, _training_options(content)))


def _renamed(name: str) -> str:
    """Transformers' name of a tensor; names that fair-esm does not have stay as they are."""
    bare = _STEMS.sub("", name)
    if bare == "embed_tokens.weight":
        return _EMBEDDING
    if bare.startswith("emb_layer_norm_after."):
        return f"encoder.{bare}"
    layer = _LAYER.fullmatch(bare)
    if layer and layer[2] in _PARTS:
        return f"encoder.layer.{layer[1]}.{_PARTS[layer[2]]}.{layer[3]}"
    return bare


def _training_options(content: Mapping[Any, object]) -> Mapping[str, object]:
    options = content.get("cfg") or content.get("args")
    if isinstance(options, Mapping):
        options = options.get("model")
    return (
        vars(options) if isinstance(options, Namespace) else options if isinstance(options, Mapping) else {}
    )


def _config(
    file: Path, shapes: Mapping[str, tuple[int, ...]], options: Mapping[str, object]
) -> dict[str, Any]:
    (rows, width), frequencies = shapes[_EMBEDDING], shapes.get(_FREQUENCIES)
    heads = width // (2 * frequencies[0]) if frequencies else options.get("encoder_attention_heads")
    if heads is None:
        raise ModelError(
            f"{file}: does not say how many attention heads the model has: there is neither rot_emb.inv_freq nor cfg; "
            "save it with all buffers, or give the model in the form of Hugging Face"
        )
    return {
        "model_type": "esm",
        "vocab_size": rows,
        "hidden_size": width,
        "num_hidden_layers": len(
            {name.split(".")[2] for name in shapes if name.startswith("encoder.layer.")}
        ),
        "num_attention_heads": heads,
        "intermediate_size": shapes[_FIRST_LAYER][0],
        # The same in every ESM-2 of fair-esm; not in its files.
        "layer_norm_eps": 1e-5,
        "position_embedding_type": "rotary",
        "token_dropout": options.get("token_dropout", True),
    }


def problem_of_file(file: Path) -> str:
    """Describe a file that was given in place of a folder or a hub id.

    Raises
    ------
    ModelError
        The file cannot be read.
    """
    with open_input(file, ModelError) as stream:
        looks = looks_like(stream.read(_LOOKED_AT))
    if file.suffix in {".safetensors", ".bin", ".pt", ".json", ".txt"}:
        return f"{file}: is one file of a model ({looks}), not a model; {_A_FOLDER}"
    return (
        f"{file}: is {looks}, not a model; give a folder with config.json and weights, or the id of a repository on "
        "the Hugging Face hub"
    )


def base_of(file: Path, config: Mapping[str, Any]) -> tuple[str, str | None]:
    """Name of an adapter's base model, as ``adapter_config.json`` says it, and its revision.

    Raises
    ------
    ModelError
        It has none.
    """
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base.strip() or not isinstance(revision, str | None):
        raise ModelError(
            f"{file}: base_model_name_or_path is {shown(base)} (revision {shown(revision)}); write the folder or "
            "hub id of the base model there"
        )
    beside = file.parent / base
    return str(beside) if not os.path.lexists(path_of(base)) and os.path.lexists(beside) else base, revision


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
            f"{file}: {name} is {shown(value)}, and only plain LoRA on linear layers can be merged here; {MERGE_IT}"
        )
