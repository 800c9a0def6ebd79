"""DNABERT-S (a MosaicBERT) as a packed encoder: token ids of sequences in, one hidden state per token out.

Weights come from :mod:`nucpro.models.weights`; hidden states go to :mod:`nucpro.embedding.batches`. The architecture is
BERT with a norm after each part, attention with linear biases (ALiBi) instead of position embeddings, and a
gated feed-forward part (Portes et al., MosaicBERT, arXiv:2312.17482; Zhou et al., DNABERT-S, arXiv:2402.08777).

Shape suffixes: t tokens of the whole batch, n sequences of a run, l tokens of each, r rows of a block of
queries, c columns of the bias, h heads, k head width, d model width, x and f other columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import nn

from nucpro.models.config import MosaicBertConfig
from nucpro.models.encoder import PackedEncoder, Product, plus_linear
from nucpro.models.loading import Checkpoint, build, draw, empty_embedding
from nucpro.models.tensors import Run, equal_runs
from nucpro.models.weights import ModelFiles

__all__ = [
    "MosaicBert",
    "alibi_slopes",
    "load_mosaic_bert",
]

_PREFIX = "bert."
_LEFT_OVERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Index buffers that published checkpoints carry and that vectors do not need."""

_QUERY_ROWS = 512
"""Queries that are attended from together: bounds the bias to some MB per head for the longest sequences."""


class MosaicBert(PackedEncoder):
    """MosaicBERT without its heads.

    Made by :func:`load_mosaic_bert`; the constructor alone leaves weights undefined.

    Parameters
    ----------
    config : MosaicBertConfig
        Shape.
    """

    config: MosaicBertConfig

    def __init__(self, config: MosaicBertConfig) -> None:
        super().__init__(config)
        self.token_type_embeddings = empty_embedding(config.token_types, config.width)
        self.embedding_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        # Set when weights are loaded; float32 whatever the precision of the weights.
        self.register_buffer("slopes", None, persistent=False)
        self.slopes: torch.Tensor

    @classmethod
    def drawn(cls, config: MosaicBertConfig, *, device: torch.device, dtype: torch.dtype) -> Self:
        """Make one with random weights, to measure speed; see :func:`nucpro.models.loading.draw`."""
        model = draw(lambda: cls(config), device=device, dtype=dtype)
        model.slopes = _slopes(config, device)
        return model

    def states(
        self, tokens_t: torch.Tensor, lengths: Sequence[int], layers: Collection[int]
    ) -> Iterator[torch.Tensor]:
        """Hidden states of some layers without kernels."""
        runs = equal_runs(lengths)
        bias_hrc = alibi_bias(self.slopes, max(lengths))
        hidden_td = self.embed(tokens_t)
        for number in range(max(layers) + 1):
            if number:
                hidden_td = self.layers[number - 1](hidden_td, runs, bias_hrc)
            if number in layers:
                yield hidden_td

    def embed(self, tokens_t: torch.Tensor) -> torch.Tensor:
        """Hidden states before the first layer, ``[T, width]``: no positions, token type 0 for all."""
        embedded_td = self.token_embeddings(tokens_t) + self.token_type_embeddings.weight[0]
        return cast(torch.Tensor, self.embedding_norm(embedded_td))


def load_mosaic_bert(
    files: ModelFiles, *, device: torch.device, dtype: torch.dtype, config: MosaicBertConfig | None = None
) -> MosaicBert:
    """Load a DNABERT-S or DNABERT-2 checkpoint.

    Parameters
    ----------
    files : ModelFiles
        Path of the model.
    device : torch.device
        Device to compute on.
    dtype : torch.dtype
        Element type of weights and activations.
    config : MosaicBertConfig, optional
        Shape, where it is known already.

    Returns
    -------
    MosaicBert
        Ready to encode.

    Raises
    ------
    ModelError
        If configuration or weights are damaged, incomplete, not explained in full, or not those of a
        MosaicBERT.
    """
    config = config or MosaicBertConfig.from_dict(files.config)
    checkpoint = Checkpoint(files.id, files.tensors(), _PREFIX)
    parts = _parts_of_parameters(config)
    model = build(lambda: MosaicBert(config), checkpoint, parts, _is_left_over, device=device, dtype=dtype)
    model.slopes = _slopes(config, device)
    return model


class EncoderLayer(nn.Module):
    """One layer with a norm after attention and one after the gated feed-forward part.

    Parameters
    ----------
    config : MosaicBertConfig
        Shape.
    """

    def __init__(self, config: MosaicBertConfig) -> None:
        super().__init__()
        width, feed_forward_width = config.width, config.feed_forward_width
        self.query_key_value = Product(width, 3 * width)
        self.attention_out = Product(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.feed_forward_in = Product(width, 2 * feed_forward_width, bias=False)
        self.feed_forward_out = Product(feed_forward_width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=config.norm_epsilon)

    def forward(self, hidden_td: torch.Tensor, runs: Sequence[Run], bias_hrc: torch.Tensor) -> torch.Tensor:
        """Hidden states ``[T, D]`` after the layer."""
        context_td = attend(self.query_key_value(hidden_td), runs, bias_hrc)
        hidden_td = self.attention_norm(plus_linear(hidden_td, context_td, self.attention_out))
        gate_tf, value_tf = self.feed_forward_in(hidden_td).chunk(2, dim=-1)
        inner_tf = F.gelu(gate_tf) * value_tf
        return cast(
            torch.Tensor, self.feed_forward_norm(plus_linear(hidden_td, inner_tf, self.feed_forward_out))
        )


def alibi_slopes(heads: int) -> list[float]:
    """Slope of each attention head's bias.

    Parameters
    ----------
    heads : int
        Number of heads.

    Returns
    -------
    list of float
        For ``n`` heads, a power of two: ``2 ** (-8 / n)`` and its powers up to the n-th. For other numbers: the
        series of the nearest smaller power of two, then every other slope of the series of its double.

    Notes
    -----
    Source: Press et al., ALiBi, arXiv:2108.12409, section 3, and the code that the paper refers to.
    """
    nearest = 1 << (heads.bit_length() - 1)
    series = [2 ** (-8 * power / nearest) for power in range(1, nearest + 1)]
    between = [2 ** (-8 * power / (2 * nearest)) for power in range(1, 2 * nearest + 1, 2)]
    return series + between[: heads - nearest]


def _slopes(config: MosaicBertConfig, device: torch.device) -> torch.Tensor:
    return torch.tensor(alibi_slopes(config.heads), dtype=torch.float32, device=device)


def alibi_bias(slopes_h: torch.Tensor, length: int) -> torch.Tensor:
    """Bias of every score, ``-slope * |i - j|``, for blocks of queries of sequences up to a length.

    The bias depends on the distance alone, so one table serves every sequence and every block of queries
    (see :func:`attend`).

    Parameters
    ----------
    slopes_h : torch.Tensor
        float32 ``[H]``.
    length : int
        Tokens of the longest sequence.

    Returns
    -------
    torch.Tensor
        float32 ``[H, R, C]``: entry ``(h, r, c)`` is for a key ``c - (C - length) - r`` tokens to the right
        of its query. R is at most 512; ``C - length`` is the first query of the longest sequence's last block.
    """
    rows = min(length, _QUERY_ROWS)
    last_block = (length - 1) // rows * rows
    queries_r = torch.arange(rows, device=slopes_h.device)
    keys_c = torch.arange(-last_block, length, device=slopes_h.device)
    distances_rc = (queries_r[:, None] - keys_c).abs()
    return -slopes_h[:, None, None] * distances_rc


def attend(mixed_tx: torch.Tensor, runs: Sequence[Run], bias_hrc: torch.Tensor) -> torch.Tensor:
    """Self-attention with linear biases within each sequence of a packed batch, in float32 throughout.

    Half precision would round a bias of 100 by up to 0.03 (fp16) or 0.25 (bf16), and scores with it; so
    queries, keys and values are widened first, and only the result takes their element type again.

    Parameters
    ----------
    mixed_tx : torch.Tensor
        ``[T, 3 D]``: queries, keys and values of all heads, concatenated.
    runs : sequence of Run
        Neighbours of equal length; each is a dense block, so no mask is needed.
    bias_hrc : torch.Tensor
        From :func:`alibi_bias`, for the longest sequence.

    Returns
    -------
    torch.Tensor
        ``[T, D]``.
    """
    heads, rows, columns = bias_hrc.shape
    last_block = columns - max(run.length for run in runs)
    context_td = mixed_tx.new_empty(mixed_tx.shape[0], mixed_tx.shape[1] // 3)
    for run in runs:
        split = run.block(mixed_tx).view(run.count, run.length, 3, heads, -1)
        query_nhlk, key_nhlk, value_nhlk = split.float().permute(2, 0, 3, 1, 4)
        for start in range(0, run.length, rows):
            stop, left = min(start + rows, run.length), last_block - start
            block_nhrk = F.scaled_dot_product_attention(
                query_nhlk[:, :, start:stop],
                key_nhlk,
                value_nhlk,
                attn_mask=bias_hrc[None, :, : stop - start, left : left + run.length],
            )
            run.block(context_td)[:, start:stop].copy_(block_nhrk.transpose(1, 2).flatten(2))
    return context_td


def _parts_of_parameters(config: MosaicBertConfig) -> dict[str, list[str]]:
    """Standard names of the tensors that make each parameter."""
    names = {
        "token_embeddings.weight": "embeddings.word_embeddings.weight",
        "token_type_embeddings.weight": "embeddings.token_type_embeddings.weight",
    }
    modules = {"embedding_norm": "embeddings.LayerNorm"}
    for number in range(config.layers):
        ours, theirs = f"layers.{number}", f"encoder.layer.{number}"
        names[f"{ours}.feed_forward_in.weight"] = f"{theirs}.mlp.gated_layers.weight"
        modules |= {
            f"{ours}.query_key_value": f"{theirs}.attention.self.Wqkv",
            f"{ours}.attention_out": f"{theirs}.attention.output.dense",
            f"{ours}.attention_norm": f"{theirs}.attention.output.LayerNorm",
            f"{ours}.feed_forward_out": f"{theirs}.mlp.wo",
            f"{ours}.feed_forward_norm": f"{theirs}.mlp.layernorm",
        }
    for ours, theirs in modules.items():
        names |= {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}
    return {ours: [theirs] for ours, theirs in names.items()}


def _is_left_over(name: str) -> bool:
    return name.startswith(_LEFT_OVERS)
