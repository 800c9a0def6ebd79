"""ESM-2 as a packed encoder: token ids of many sequences in, one hidden state per token out, no padding.

Weights come from :mod:`nucpro.models.weights` (or from a Hugging Face model object); hidden states go to
:mod:`nucpro.embedding.batches`. The architecture is that of Lin et al., Science 379:1123 (2023), as transformers'
``EsmModel`` computes it: pre-norm layers, rotary positions, erf GELU, a final layer norm.

Shape suffixes: t tokens of the whole batch, n sequences of a run, l tokens of each, h heads, k head width,
r half of it, d model width, x and f other columns.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from nucpro.errors import ModelError
from nucpro.models.config import AUTO, Esm2Config
from nucpro.models.encoder import PackedEncoder, Product, plus_linear
from nucpro.models.loading import Checkpoint, build, draw
from nucpro.models.tensors import Run, equal_runs
from nucpro.models.weights import ModelFiles

__all__ = ["Esm2", "load_esm2"]

logger = logging.getLogger(__name__)

_PREFIX = "esm."

_UNMASKED_SHARE = 1 - 0.15 * 0.8
"""Token dropout: in training 15% of the tokens were chosen and 80% of those masked; without masks, embeddings
are scaled by what was left (transformers, ``EsmEmbeddings``)."""

_LEFT_OVERS = ("embeddings.position_ids", "embeddings.position_embeddings.weight")
"""Tables that published checkpoints carry and that residue vectors do not need."""
_FREQUENCIES = "rotary_embeddings.inv_freq"
_LARGEST_ROUNDING = 1e-3


class Esm2(PackedEncoder):
    """ESM-2 without its heads.

    Made by :func:`load_esm2` or :meth:`from_huggingface`; the constructor alone leaves weights undefined.

    Parameters
    ----------
    config : Esm2Config
        Shape and options.
    """

    config: Esm2Config

    def __init__(self, config: Esm2Config) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        # Set when weights are loaded; float32 whatever the precision of the weights.
        self.register_buffer("inverse_frequencies", None, persistent=False)
        self.inverse_frequencies: torch.Tensor

    def states(
        self, tokens_t: torch.Tensor, lengths: Sequence[int], layers: Collection[int]
    ) -> Iterator[torch.Tensor]:
        """Hidden states of some layers without kernels; that of the last layer after the final norm."""
        runs = equal_runs(lengths)
        cosines, sines = rotary_tables(max(lengths), self.inverse_frequencies)
        hidden_td = self.token_embeddings(tokens_t)
        for number in range(max(layers) + 1):
            if number:
                hidden_td = self.layers[number - 1](hidden_td, runs, cosines, sines)
            if number in layers:
                yield self.final_norm(hidden_td) if number == self.config.layers else hidden_td

    @classmethod
    def from_huggingface(
        cls,
        model: nn.Module,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        token_dropout: str = AUTO,
    ) -> Self:
        """Copy the weights of a model object of transformers (or one with the same interface).

        Parameters
        ----------
        model : torch.nn.Module
            ``EsmModel``, ``EsmForMaskedLM``, a FastESM model, …: anything with ``.config`` and the parameter
            names of ESM-2.
        device, dtype : torch.device, torch.dtype, optional
            Where and in which precision to compute; the model's own where not given.
        token_dropout : {'auto', 'on', 'off'}
            See :meth:`Esm2Config.from_dict`.

        Returns
        -------
        Esm2
            With its own copy of the weights.

        Raises
        ------
        ModelError
            If the object is not an ESM-2.
        """
        config = Esm2Config.from_object(model, token_dropout=token_dropout)
        sample = next(model.parameters())
        checkpoint = Checkpoint(type(model).__name__, model.state_dict(), _PREFIX)
        return cls._filled(config, checkpoint, device or sample.device, dtype or sample.dtype)

    @classmethod
    def drawn(cls, config: Esm2Config, *, device: torch.device, dtype: torch.dtype) -> Self:
        """Make one with random weights, to measure speed; see :func:`nucpro.models.loading.draw`."""
        model = draw(lambda: cls(config), device=device, dtype=dtype)
        model.inverse_frequencies = _computed_frequencies(config).to(device)
        return model

    @classmethod
    def _filled(
        cls, config: Esm2Config, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> Self:
        parts = _parts_of_parameters(config)
        model = build(lambda: cls(config), checkpoint, parts, _is_left_over, device=device, dtype=dtype)
        model.inverse_frequencies = _rotary_frequencies(config, checkpoint).to(device)
        if config.token_dropout:
            model.token_embeddings.weight.mul_(_UNMASKED_SHARE)
        return model


def load_esm2(
    files: ModelFiles, *, device: torch.device, dtype: torch.dtype, config: Esm2Config | None = None
) -> Esm2:
    """Load an ESM-2 checkpoint.

    Parameters
    ----------
    files : ModelFiles
        Path of the model.
    device : torch.device
        Device to compute on.
    dtype : torch.dtype
        Element type of weights and activations.
    config : Esm2Config, optional
        Shape and options, where they are known already.

    Returns
    -------
    Esm2
        Ready to encode.

    Raises
    ------
    ModelError
        If configuration or weights are damaged, incomplete, not explained in full, or not those of an ESM-2.
    """
    config = config or Esm2Config.from_dict(files.config)
    logger.info("Token dropout rescaling is %s", "on" if config.token_dropout else "off")
    return Esm2._filled(config, Checkpoint(files.id, files.tensors(), _PREFIX), device, dtype)


class EncoderLayer(nn.Module):
    """One pre-norm layer: attention, then feed-forward, each added to what came in.

    Parameters
    ----------
    config : Esm2Config
        Shape.
    """

    def __init__(self, config: Esm2Config) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.query_key_value = Product(width, 3 * width)
        self.attention_out = Product(width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.feed_forward_in = Product(width, config.feed_forward_width)
        self.feed_forward_out = Product(config.feed_forward_width, width)

    def forward(
        self, hidden_td: torch.Tensor, runs: Sequence[Run], cosines_lr: torch.Tensor, sines_lr: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states ``[T, D]`` after the layer."""
        mixed_tx = self.query_key_value(self.attention_norm(hidden_td))
        context_td = attend(mixed_tx, runs, self.heads, cosines_lr, sines_lr)
        hidden_td = plus_linear(hidden_td, context_td, self.attention_out)
        inner_tf = F.gelu(self.feed_forward_in(self.feed_forward_norm(hidden_td)))
        return plus_linear(hidden_td, inner_tf, self.feed_forward_out)


def rotary_tables(length: int, inverse_frequencies_r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of rotary positions 0 to ``length - 1``, float32 ``[length, R]`` each.

    Source: Su et al., RoFormer, arXiv:2104.09864, equation 34, in the half-split layout of ESM-2.
    """
    positions_l = torch.arange(length, device=inverse_frequencies_r.device, dtype=torch.float32)
    angles_lr = torch.outer(positions_l, inverse_frequencies_r)
    return angles_lr.cos(), angles_lr.sin()


def rotate(vectors: torch.Tensor, cosines_lr: torch.Tensor, sines_lr: torch.Tensor) -> torch.Tensor:
    """Turn queries and keys ``[..., L, K]`` by their positions, in float32; the element type is kept."""
    turned = vectors.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    first, second = turned.chunk(2, dim=-1)
    swapped = torch.cat((second, first), dim=-1)
    # In place on whole rows: on a CPU, rotation is limited by how often it goes through memory.
    turned.mul_(torch.cat((cosines_lr, cosines_lr), dim=-1))
    turned.addcmul_(swapped, torch.cat((-sines_lr, sines_lr), dim=-1))
    return turned.to(vectors.dtype)


def attend(
    mixed_tx: torch.Tensor,
    runs: Sequence[Run],
    heads: int,
    cosines_lr: torch.Tensor,
    sines_lr: torch.Tensor,
) -> torch.Tensor:
    """Rotary self-attention within each sequence of a packed batch.

    Parameters
    ----------
    mixed_tx : torch.Tensor
        ``[T, 3 D]``: queries, keys and values of all heads, concatenated.
    runs : sequence of Run
        Neighbours of equal length; each is a dense block, so no mask is needed.
    heads : int
        Attention heads.
    cosines_lr, sines_lr : torch.Tensor
        Tables from :func:`rotary_tables`, for the longest sequence or longer.

    Returns
    -------
    torch.Tensor
        ``[T, D]``.
    """
    context_td = mixed_tx.new_empty(mixed_tx.shape[0], mixed_tx.shape[1] // 3)
    for run in runs:
        cosines, sines = cosines_lr[: run.length], sines_lr[: run.length]
        split = run.block(mixed_tx).view(run.count, run.length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query_nhlk, key_nhlk = rotate(split[:2], cosines, sines)
        # Scores are scaled by K ** -0.5, which is the same as ESM-2's scaled queries: rotation is linear.
        block_nhlk = F.scaled_dot_product_attention(query_nhlk, key_nhlk, split[2])
        run.block(context_td).copy_(block_nhlk.transpose(1, 2).flatten(2))
    return context_td


def _parts_of_parameters(config: Esm2Config) -> dict[str, list[str]]:
    """Standard names of the tensors that make each parameter."""
    bare = {"token_embeddings.weight": ["embeddings.word_embeddings.weight"]}
    modules = {"final_norm": ["encoder.emb_layer_norm_after"]}
    for number in range(config.layers):
        ours, theirs = f"layers.{number}", f"encoder.layer.{number}"
        modules |= {
            f"{ours}.attention_norm": [f"{theirs}.attention.LayerNorm"],
            f"{ours}.query_key_value": [
                f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")
            ],
            f"{ours}.attention_out": [f"{theirs}.attention.output.dense"],
            f"{ours}.feed_forward_norm": [f"{theirs}.LayerNorm"],
            f"{ours}.feed_forward_in": [f"{theirs}.intermediate.dense"],
            f"{ours}.feed_forward_out": [f"{theirs}.output.dense"],
        }
    return bare | {
        f"{ours}.{kind}": [f"{part}.{kind}" for part in theirs]
        for ours, theirs in modules.items()
        for kind in ("weight", "bias")
    }


def _is_left_over(name: str) -> bool:
    return name.startswith(_LEFT_OVERS) or name.endswith(_FREQUENCIES)


def _rotary_frequencies(config: Esm2Config, checkpoint: Checkpoint) -> torch.Tensor:
    """Inverse frequencies, float32 ``[R]``: those of the checkpoint where it holds them.

    Published ESM-2 weights were trained with frequencies rounded to fp16 and carry those; recomputing them
    from the base moves the angle of residue 1,000 by up to a third of a radian.
    """
    computed = _computed_frequencies(config)
    stored = {
        name: _checked_frequencies(checkpoint, name, computed)
        for name in checkpoint.tensors
        if name.endswith(_FREQUENCIES)
    }
    if not stored:
        return computed
    first, *others = stored
    for name in others:
        if not torch.equal(stored[name], stored[first]):
            raise ModelError(
                f"{checkpoint.source}: {name} differs from {first}; "
                "all layers of an ESM-2 share one set of rotary frequencies"
            )
    return stored[first]


def _computed_frequencies(config: Esm2Config) -> torch.Tensor:
    steps = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    return config.rotary_base**-steps


def _checked_frequencies(checkpoint: Checkpoint, name: str, computed: torch.Tensor) -> torch.Tensor:
    found = checkpoint.tensors[name].float().cpu()
    if found.shape != computed.shape:
        raise ModelError(
            f"{checkpoint.source}: {name} has the shape {tuple(found.shape)}; "
            f"config.json makes it {tuple(computed.shape)}"
        )
    deviation = float((found / computed - 1).abs().max())
    if not deviation <= _LARGEST_ROUNDING:
        raise ModelError(
            f"{checkpoint.source}: {name} deviates by {deviation:.2g} from those that rope_theta in "
            f"config.json gives; up to {_LARGEST_ROUNDING:g} (float16 rounding) is allowed: fetch the model again "
            "(nucpro fetch-models FOLDER), or load a model object in float32 or float16, not in bfloat16"
        )
    return found
