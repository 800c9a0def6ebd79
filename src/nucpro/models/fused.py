"""The forward of ESM-2 on GPUs that can run our kernels: few passes over memory around each matrix product.

:mod:`nucpro.models.architectures` gives it to an encoder, whose weights it shares; it makes the hidden states that the
encoder's own forward would make, but for rounding. Products that end a branch add to the hidden states in place: the
sum is float32 and is rounded once. Their biases are left out there and added, summed up, by the norms that follow.

Shape suffixes: t tokens of the whole batch, n sequences, l positions, r half of a head, s attention tiles,
d model width, f columns of a product, x other columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
import triton
from torch import nn

from nucpro.models.encoder import Forward
from nucpro.models.esm2 import EncoderLayer, Esm2, rotary_tables
from nucpro.models.kernels import Way, finish, product
from nucpro.models.kernels.attention import attend, attention_tiles
from nucpro.models.kernels.finish import Rotary
from nucpro.models.kernels.norm import layer_norm
from nucpro.models.tensors import to_device

__all__ = ["FusedEsm2", "fused_forward"]


def fused_forward(model: Esm2, way: Way) -> Forward:
    """Make the forward by kernels of an ESM-2.

    Parameters
    ----------
    model : Esm2
        With its weights.
    way : Way
        Whose products it takes.
    """
    return FusedEsm2(model, product.Blocks.of_device(model.device) if way is Way.HOPPER else None)


class FusedEsm2:
    """Forward of an ESM-2 by kernels.

    Parameters
    ----------
    model : Esm2
        With its weights; they are shared, and copied only where heads must be padded.
    blocks : Blocks or None
        Those of the Hopper product, for which the model's width must be a multiple of 8 and its feed-forward width
        one of 32; None for cuBLAS products.
    """

    def __init__(self, model: Esm2, blocks: product.Blocks | None) -> None:
        self._blocks = blocks
        self._heads = _PaddedHeads.of(model.config.heads, model.config.head_width)
        self._embedding = model.token_embeddings.weight
        half = self._heads.padded_width // 2
        frequencies_r = model.inverse_frequencies
        self._frequencies_r = F.pad(frequencies_r, (0, half - len(frequencies_r)))
        self._layers: list[_FusedLayer] = []
        shift_d = torch.zeros(model.width, device=model.device, dtype=torch.float32)
        for layer in cast(list[EncoderLayer], list(model.layers)):
            self._layers.append(_FusedLayer.of(layer, self._heads, shift_d))
            shift_d = self._layers[-1].feed_forward_shift_d + layer.feed_forward_out.bias.float()
        self._final_norm = _ShiftedNorm(model.final_norm, shift_d)

    def __call__(self, tokens_t: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Encode packed sequences; see :meth:`nucpro.models.esm2.Esm2.forward`."""
        (hidden_td,) = self.states(tokens_t, lengths, (len(self._layers),))
        return hidden_td

    def states(
        self, tokens_t: torch.Tensor, lengths: Sequence[int], layers: Collection[int]
    ) -> Iterator[torch.Tensor]:
        """Hidden states of some layers; see :meth:`nucpro.models.encoder.PackedEncoder.states`."""
        tiles_s = to_device(attention_tiles(lengths), self._embedding.device)
        rotary = self._rotary(lengths)
        hidden_td = F.embedding(tokens_t, self._embedding)
        for number, layer in enumerate(self._layers[: max(layers)]):
            if number in layers:
                yield layer.attention_norm.whole(hidden_td)
            normed_td = layer.attention_norm(hidden_td)
            mixed_tf = self._mix(layer, normed_td, rotary)
            context_tx = attend(mixed_tf, tiles_s, self._heads.padded_count)
            torch.addmm(hidden_td, context_tx, layer.out_weight_xd, out=hidden_td)
            normed_td = layer.feed_forward_norm(hidden_td)
            inner_tf = self._inner(layer.inner, normed_td)
            torch.addmm(hidden_td, inner_tf, layer.outer.weight.t(), out=hidden_td)
        if max(layers) == len(self._layers):
            yield self._final_norm(hidden_td)
        else:
            yield self._layers[max(layers)].attention_norm.whole(hidden_td)

    def _mix(self, layer: _FusedLayer, normed_td: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        """Queries, keys and values, turned by their positions."""
        if self._blocks is None:
            return finish.linear_rotated(normed_td, layer.mix_weight_fd, layer.mix_bias_f, rotary)
        return product.linear_rotated(normed_td, layer.mix_weight_fd, layer.mix_bias_f, self._blocks, rotary)

    def _inner(self, linear: nn.Linear, normed_td: torch.Tensor) -> torch.Tensor:
        """First product of the feed-forward part, with GELU."""
        if self._blocks is None:
            return finish.linear_gelu(normed_td, linear.weight, linear.bias)
        return product.linear_gelu(normed_td, linear.weight, linear.bias, self._blocks)

    def _rotary(self, lengths: Sequence[int]) -> Rotary:
        lengths_n = to_device(torch.tensor(lengths, dtype=torch.int32), self._embedding.device)
        starts_n = lengths_n.cumsum(0, dtype=torch.int32) - lengths_n
        tokens = sum(lengths)
        first_t = torch.repeat_interleave(starts_n, lengths_n, output_size=tokens)
        positions_t = torch.arange(tokens, dtype=torch.int32, device=first_t.device) - first_t
        tables = rotary_tables(max(lengths), self._frequencies_r)
        return Rotary(*tables, positions_t, self._heads.width)


@dataclass(frozen=True)
class _PaddedHeads:
    """Attention heads, padded with zeros to what blocks of products and matrix units can hold.

    Zeros change no score and give zeros as context, which meet zeros in the output product.

    Parameters
    ----------
    count, width : int
        Heads of the model, and columns of each.
    padded_count, padded_width : int
        An even number, and a power of two of at least 16.
    """

    count: int
    width: int
    padded_count: int
    padded_width: int

    @classmethod
    def of(cls, count: int, width: int) -> _PaddedHeads:
        return cls(count, width, count + count % 2, max(16, triton.next_power_of_2(width)))

    def pad(self, rows_fx: torch.Tensor) -> torch.Tensor:
        """Rows of one or more times all heads, with those of padding among them.

        The halves of a head are padded on their own, since rotation pairs their columns.
        """
        if (self.count, self.width) == (self.padded_count, self.padded_width):
            return rows_fx
        columns = rows_fx[0].numel()
        apart = rows_fx.reshape(-1, self.count, 2, self.width // 2, columns)
        more_rows = (self.padded_width - self.width) // 2
        padded = F.pad(apart, (0, 0, 0, more_rows, 0, 0, 0, self.padded_count - self.count))
        return padded.reshape(-1, *rows_fx.shape[1:])


@dataclass(frozen=True)
class _ShiftedNorm:
    """Layer norm of hidden states that lack a constant vector."""

    norm: nn.LayerNorm
    shift_d: torch.Tensor

    def whole(self, hidden_td: torch.Tensor) -> torch.Tensor:
        """Hidden states with what they lack, not normed; their element type is kept."""
        return torch.add(hidden_td, self.shift_d).to(hidden_td.dtype)

    def __call__(self, hidden_td: torch.Tensor) -> torch.Tensor:
        return layer_norm(hidden_td, self.norm.weight, self.norm.bias, self.shift_d, self.norm.eps)


@dataclass(frozen=True)
class _FusedLayer:
    """What the kernels need of one encoder layer."""

    attention_norm: _ShiftedNorm
    mix_weight_fd: torch.Tensor
    mix_bias_f: torch.Tensor
    out_weight_xd: torch.Tensor
    feed_forward_norm: _ShiftedNorm
    inner: nn.Linear
    outer: nn.Linear

    @classmethod
    def of(cls, layer: EncoderLayer, heads: _PaddedHeads, shift_d: torch.Tensor) -> _FusedLayer:
        """Use a layer whose hidden states lack ``shift_d``."""
        mix, out = layer.query_key_value, layer.attention_out
        return cls(
            attention_norm=_ShiftedNorm(layer.attention_norm, shift_d),
            mix_weight_fd=heads.pad(mix.weight),
            mix_bias_f=heads.pad(mix.bias),
            out_weight_xd=heads.pad(out.weight.t()),
            feed_forward_norm=_ShiftedNorm(layer.feed_forward_norm, shift_d + out.bias.float()),
            inner=layer.feed_forward_in,
            outer=layer.feed_forward_out,
        )

    @property
    def feed_forward_shift_d(self) -> torch.Tensor:
        """What hidden states lack before the feed-forward part."""
        return self.feed_forward_norm.shift_d
