"""ESM-2 models with random weights and realistic activations, and transformers as the reference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import EsmConfig, EsmModel
from transformers.utils.logging import disable_progress_bar

from nucpro.embedding import encoder as encoders
from nucpro.embedding.encoder import FastaEncoder
from nucpro.formats.fasta import Records
from nucpro.formats.sequences import SequenceType
from nucpro.models.tokens import ESM_VOCABULARY, ResidueTokenizer
from nucpro.options import Options

disable_progress_bar()

LETTERS = b"ACDEFGHIKLMNPQRSTVWYXBUZO"


def config(**changes) -> EsmConfig:
    """Configuration of a small ESM-2; keyword arguments change single fields."""
    fields = {
        "vocab_size": 33,
        "mask_token_id": 32,
        "pad_token_id": 1,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "layer_norm_eps": 1e-5,
        "position_embedding_type": "rotary",
        "emb_layer_norm_before": False,
        "token_dropout": True,
    }
    return EsmConfig(**(fields | changes))


def model(seed: int = 0, **changes) -> EsmModel:
    """EsmModel whose products keep the size of what goes in, and whose norms and biases are not trivial."""
    esm = EsmModel(config(**changes), add_pooling_layer=False).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in esm.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "LayerNorm" in name or "layer_norm" in name:
            parameter.data = noise * 0.2 + (1.0 if name.endswith("weight") else 0.0)
        elif parameter.dim() == 2 and "embeddings" not in name:
            parameter.data = noise * parameter.shape[1] ** -0.5
        else:
            parameter.data = noise * (1.0 if parameter.dim() == 2 else 0.1)
    return esm


def encoder_of(folder: Path) -> FastaEncoder:
    """A protein encoder from a folder, on the CPU."""
    options = Options(protein_model=str(folder), device="cpu")
    return encoders.load(encoders.identify(options, SequenceType.PROTEIN), options)


def vectors_of(folder: Path) -> np.ndarray:
    """Vectors of three proteins."""
    sequences = [b"MKVLA", b"MSTNPKPQRKTKRNTNRRPQDVKFPGG", b"MX"]
    return encoder_of(folder).embed_checked(Records(Path("x"), ["a", "b", "c"], sequences)).matrix


def save(esm: EsmModel, folder: Path) -> Path:
    """Folder with the model as transformers saves it, and its vocabulary."""
    esm.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(ESM_VOCABULARY))
    return folder


def proteins(lengths: Sequence[int], seed: int = 0) -> list[bytes]:
    """Random proteins of these lengths."""
    draw = random.Random(seed)
    return [bytes(draw.choices(LETTERS, k=length)) for length in lengths]


def packed(sequences: Sequence[bytes]) -> tuple[torch.Tensor, list[int]]:
    """Token ids and lengths, in the order given."""
    names = [str(row) for row in range(len(sequences))]
    encoded = ResidueTokenizer().encode(names, sequences, 10**6)
    return torch.from_numpy(encoded.tokens.astype(np.int32)), encoded.lengths.tolist()


@torch.inference_mode()
def reference(esm: EsmModel, sequences: Sequence[bytes]) -> torch.Tensor:
    """Hidden states of all tokens as transformers computes them in one padded batch, packed as ours."""
    tokens, lengths = packed(sequences)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    padded = torch.full(mask.shape, ESM_VOCABULARY.index("<pad>"))
    padded[mask] = tokens.long()
    return esm(padded, attention_mask=mask.long()).last_hidden_state[mask]
