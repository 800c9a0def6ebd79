"""All kinds of encoders that can be used, which of them a checkpoint holds, and by what means each computes.

``config.json`` comes from :mod:`nucpro.models.weights`; the entry goes to :mod:`nucpro.encoders`. To add an encoder,
write its module and name its entry here. Encoders know nothing of kernels: their forward by kernels is named here.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping

import torch

from nucpro.errors import ModelError
from nucpro.layout import Side
from nucpro.models.encoder import Architecture, Config, PackedEncoder
from nucpro.models.esm2 import ESM2, Esm2
from nucpro.models.kernels import Choice, Fused, Way, choose_way
from nucpro.models.mosaic_bert import MOSAIC_BERT, MosaicBert
from nucpro.models.weights import ModelFiles

__all__ = ["ARCHITECTURES", "FUSED", "architecture_of", "use_kernels", "way_of"]

logger = logging.getLogger(__name__)

ARCHITECTURES: tuple[Architecture, ...] = (ESM2, MOSAIC_BERT)
"""What a model of either side may be."""

FUSED: Mapping[type[PackedEncoder], Fused] = {
    Esm2: Fused("nucpro.models.fused", pads_heads=True, has_hopper_product=True),
    MosaicBert: Fused("nucpro.models.mosaic_bert_fused", pads_heads=False, has_hopper_product=False),
}
"""Forwards by kernels; an encoder that has none computes by its own."""


def architecture_of(files: ModelFiles, side: Side) -> Architecture:
    """Find the architecture of a checkpoint.

    Parameters
    ----------
    files : ModelFiles
        The checkpoint.
    side : Side
        What the model is to read.

    Raises
    ------
    ModelError
        The ``model_type`` of its ``config.json`` is none that this side can be encoded with.
    """
    model_type = files.config.get("model_type")
    of_side = [known for known in ARCHITECTURES if known.side is side]
    for architecture in of_side:
        if model_type in architecture.model_types:
            return architecture
    allowed = ", ".join(f"{' or '.join(known.model_types)} ({known.encoder.title})" for known in of_side)
    raise ModelError(
        f"{files.id}: model_type is {model_type!r} in config.json; allowed for the {side} model: {allowed}; "
        "name a model of one of these, or add its architecture (CONTRIBUTING.md says how)"
    )


def way_of(encoder: type[PackedEncoder], config: Config, device: torch.device, dtype: torch.dtype) -> Choice:
    """How an encoder of a configuration computes on a device; see :func:`nucpro.models.kernels.choose_way`."""
    return choose_way(FUSED.get(encoder), config, device, dtype)


def use_kernels(model: PackedEncoder) -> Choice:
    """Give an encoder its forward by kernels where they can run, and say in the log how it computes.

    Parameters
    ----------
    model : PackedEncoder
        With its weights on their device.

    Returns
    -------
    Choice
        What it computes by.
    """
    choice = way_of(type(model), model.config, model.device, model.dtype)
    logger.info("%s on %s runs %s", model.title, model.device, choice)
    if choice.way is not Way.PLAIN:
        # Triton, which these import, comes with CUDA builds of torch only.
        fused = importlib.import_module(FUSED[type(model)].module)
        pool = importlib.import_module("nucpro.models.kernels.pool")
        model.run_by(fused.fused_forward(model, choice.way), pool.mean_pool)
    return choice
