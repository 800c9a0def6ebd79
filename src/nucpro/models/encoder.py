"""Base class of all encoders: the module that holds the weights.

The module of an encoder (:mod:`nucpro.models.esm2`, :mod:`nucpro.models.mosaic_bert`) fills it in, and has an entry in
:mod:`nucpro.models.architectures`.

Shape suffixes: t tokens of the whole batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn

from nucpro.models.config import MEAN, Config, PooledSpan, Readout
from nucpro.models.loading import empty_embedding
from nucpro.models.tensors import pool_states

__all__ = ["Forward", "PackedEncoder", "Pooling", "Product", "plus_linear"]


class Forward(Protocol):
    """Computes hidden states of packed token ids."""

    def states(
        self, tokens_t: torch.Tensor, lengths: Sequence[int], layers: Collection[int]
    ) -> Iterator[torch.Tensor]:
        """Hidden states ``[T, width]`` of some layers, in rising order; see :meth:`PackedEncoder.states`."""
        ...


Pooling = Callable[[torch.Tensor, Sequence[int], PooledSpan, Sequence[str]], torch.Tensor]
"""From hidden states ``[T, width]`` to those of each sequence pooled, float32 ``[N, P width]``."""


class PackedEncoder(nn.Module, ABC):
    """An encoder of packed token ids without its heads.

    Made by the loader of its module; the constructor alone leaves weights undefined.

    Parameters
    ----------
    config : Config
        Shape and options.

    Attributes
    ----------
    fused : callable or None
        The forward by kernels, where :func:`nucpro.models.architectures.use_kernels` found one that can run.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.token_embeddings = empty_embedding(config.vocabulary_size, config.width)
        self.fused: Forward | None = None
        self._pool_states: Pooling = pool_states

    @property
    def width(self) -> int:
        """Columns of a hidden state."""
        return self.config.width

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Element type of matrix products; that of hidden states is the same, or float32 (:class:`Product`)."""
        products = (module.weight.dtype for module in self.modules() if isinstance(module, Product))
        return next(products, self.token_embeddings.weight.dtype)

    def forward(self, tokens_t: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Encode packed sequences.

        Parameters
        ----------
        tokens_t : torch.Tensor
            Integer ids ``[T]``; each sequence with its special tokens, one after the other.
        lengths : sequence of int
            Tokens of each sequence, summing to T. Neighbours of equal length are attended to together, so
            sorted lengths are fastest; the result does not depend on the order beyond rounding.

        Returns
        -------
        torch.Tensor
            Hidden states of the last layer, ``[T, width]``.
        """
        (hidden_td,) = (self.fused or self).states(tokens_t, lengths, (self.config.layers,))
        return hidden_td

    def encode(self, tokens_t: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Encode packed sequences without kernels; see :meth:`forward`."""
        (hidden_td,) = self.states(tokens_t, lengths, (self.config.layers,))
        return hidden_td

    def pool(
        self, hidden_td: torch.Tensor, lengths: Sequence[int], poolings: Sequence[str] = (MEAN,)
    ) -> torch.Tensor:
        """Pool each sequence over the span of its configuration, float32 ``[N, P width]``; by default the mean."""
        return self._pool_states(hidden_td, lengths, self.config.pooled_span, poolings)

    def read(self, tokens_t: torch.Tensor, lengths: Sequence[int], readout: Readout) -> torch.Tensor:
        """Vectors of packed sequences, float32 ``[N, parts width]``, or hidden states ``[T, layers width]``.

        Computes no layer above the last that is read.
        """
        layers = [layer % (self.config.layers + 1) for layer in readout.layers]
        rising = sorted(layers)
        states = zip(rising, (self.fused or self).states(tokens_t, lengths, rising), strict=True)
        # Each state is used up before the next one is computed, maybe in its place.
        if readout.per_residue:
            kept = {layer: hidden_td.clone() if len(layers) > 1 else hidden_td for layer, hidden_td in states}
        else:
            kept = {layer: self.pool(hidden_td, lengths, readout.poolings) for layer, hidden_td in states}
        return torch.cat([kept[layer] for layer in layers], dim=1) if len(layers) > 1 else kept[layers[0]]

    @abstractmethod
    def states(
        self, tokens_t: torch.Tensor, lengths: Sequence[int], layers: Collection[int]
    ) -> Iterator[torch.Tensor]:
        """Hidden states of some layers without kernels, each computed when it is asked for.

        Parameters
        ----------
        tokens_t, lengths
            As in :meth:`forward`.
        layers : collection of int
            From 0, the embedding, to the number of layers, whose state is that after the final norm where there is one:
            those of the ``hidden_states`` of transformers. Nothing above the highest is computed.

        Yields
        ------
        torch.Tensor
            ``[T, width]``, in rising order of layers; the next may take its place.
        """

    def run_by(self, fused: Forward, pooling: Pooling) -> None:
        """Encode and pool by kernels from now on."""
        self.fused, self._pool_states = fused, pooling


class Product(nn.Linear):
    """Linear layer whose weights may be of a smaller element type than its inputs and results.

    So a CPU multiplies in bfloat16 and computes everything else in float32.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``inputs @ weight.T + bias`` in the element type of the inputs."""
        kind = self.weight.dtype
        bias = None if self.bias is None else self.bias.to(kind)
        return F.linear(inputs.to(kind), self.weight, bias).to(inputs.dtype)


def plus_linear(hidden_td: torch.Tensor, inputs_tx: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """``hidden + linear(inputs)``, ``[T, D]``, with one pass over memory less: the product adds to the sum."""
    if linear.weight.dtype != hidden_td.dtype:
        return cast(torch.Tensor, linear(inputs_tx)).add_(hidden_td)
    return (hidden_td + linear.bias).addmm_(inputs_tx, linear.weight.t())
