"""All kinds of encoders that can be used, and which of them a checkpoint holds.

``config.json`` comes from :mod:`nucpro.models.weights`; the entry goes to :mod:`nucpro.embedding.encoder`. To add an
encoder, write its module and name its entry here.
"""

from __future__ import annotations

from nucpro.errors import ModelError
from nucpro.formats.sequences import SequenceType
from nucpro.models.encoder import Architecture
from nucpro.models.esm2 import ESM2
from nucpro.models.mosaic_bert import MOSAIC_BERT
from nucpro.models.weights import ModelFiles

__all__ = ["ARCHITECTURES", "architecture_of"]

ARCHITECTURES: tuple[Architecture, ...] = (ESM2, MOSAIC_BERT)
"""What a model of either side may be."""


def architecture_of(files: ModelFiles, side: SequenceType) -> Architecture:
    """Find the architecture of a checkpoint.

    Parameters
    ----------
    files : ModelFiles
        The checkpoint.
    side : SequenceType
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
