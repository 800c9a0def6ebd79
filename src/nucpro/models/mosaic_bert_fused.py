"""The forward of MosaicBERT on GPUs that can run our kernels: few passes over memory around each matrix product.

:mod:`nucpro.models.architectures` gives it to an encoder, whose weights it shares; it makes the hidden states that the
encoder's own forward would make, but for rounding. Its products are those of cuBLAS on every GPU. Those that end a
branch add to the hidden states in place: the sum is float32 and is rounded once. Their biases are left out there and
added by the norms that follow.

Shape suffixes: t tokens of the whole batch, s attention tiles, d model width, f columns of the gate, x others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from nucpro.models.encoder import Forward
from nucpro.models.kernels import Way
from nucpro.models.kernels.attention import attend, attention_tiles
from nucpro.models.kernels.finish import gated_gelu
from nucpro.models.kernels.norm import layer_norm
from nucpro.models.mosaic_bert import EncoderLayer, MosaicBert
from nucpro.models.tensors import to_device

__all__ = ["FusedMosaicBert", "fused_forward"]


def fused_forward(model: MosaicBert, _way: Way) -> Forward:
    """Make the forward by kernels of a MosaicBERT, which is the same wherever kernels run."""
    return FusedMosaicBert(model)


class FusedMosaicBert:
    """Forward of a MosaicBERT by kernels.

    Parameters
    ----------
    model : MosaicBert
        With its weights, which are shared. The width of its heads must be a power of two of at least 16.
    """

    def __init__(self, model: MosaicBert) -> None:
        self._model = model
        self._layers = [_FusedLayer.of(layer) for layer in cast(list[EncoderLayer], list(model.layers))]

    def __call__(self, tokens_t: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Encode packed sequences; see :meth:`nucpro.models.mosaic_bert.MosaicBert.forward`."""
        (hidden_td,) = self.states(tokens_t, lengths, (len(self._layers),))
        return hidden_td

    def states(
        self, tokens_t: torch.Tensor, lengths: Sequence[int], layers: Collection[int]
    ) -> Iterator[torch.Tensor]:
        """Hidden states of some layers; see :meth:`nucpro.models.encoder.PackedEncoder.states`."""
        heads, slopes_h = self._model.config.heads, self._model.slopes
        tiles_s = to_device(attention_tiles(lengths), self._model.device)
        hidden_td = self._model.embed(tokens_t)
        if 0 in layers:
            yield hidden_td
        for number, layer in enumerate(self._layers[: max(layers)], 1):
            context_td = attend(layer.mix(hidden_td), tiles_s, heads, slopes_h)
            hidden_td = layer.attention_end(hidden_td, context_td)
            hidden_td = layer.feed_forward_end(hidden_td, gated_gelu(layer.gate(hidden_td)))
            if number in layers:
                yield hidden_td


@dataclass(frozen=True)
class _BranchEnd:
    """Product that ends a branch, addition to the hidden states, and norm."""

    product: nn.Linear
    norm: nn.LayerNorm
    shift_d: torch.Tensor

    @classmethod
    def of(cls, product: nn.Linear, norm: nn.LayerNorm) -> _BranchEnd:
        return cls(product, norm, product.bias.float())

    def __call__(self, hidden_td: torch.Tensor, inner_tx: torch.Tensor) -> torch.Tensor:
        torch.addmm(hidden_td, inner_tx, self.product.weight.t(), out=hidden_td)
        return layer_norm(hidden_td, self.norm.weight, self.norm.bias, self.shift_d, self.norm.eps)


@dataclass(frozen=True)
class _FusedLayer:
    """What the kernels need of one encoder layer."""

    mix: nn.Linear
    attention_end: _BranchEnd
    gate: nn.Linear
    feed_forward_end: _BranchEnd

    @classmethod
    def of(cls, layer: EncoderLayer) -> _FusedLayer:
        return cls(
            mix=layer.query_key_value,
            attention_end=_BranchEnd.of(layer.attention_out, layer.attention_norm),
            gate=layer.feed_forward_in,
            feed_forward_end=_BranchEnd.of(layer.feed_forward_out, layer.feed_forward_norm),
        )
