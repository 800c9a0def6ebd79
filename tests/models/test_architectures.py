"""A kind of encoder that the package does not know works once its entry is in the table."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nucpro.embedding import encoder as encoders
from nucpro.errors import ModelError
from nucpro.formats import read_vectors
from nucpro.formats.sequences import SequenceType
from nucpro.models import architectures
from nucpro.models.architectures import Architecture
from nucpro.models.config import ALL_TOKENS, PooledSpan, size
from nucpro.models.encoder import PackedEncoder
from nucpro.models.loading import Checkpoint, build
from nucpro.models.tokens import ESM_VOCABULARY, ResidueTokenizer
from nucpro.models.weights import ModelFiles, locate
from nucpro.options import Options

WIDTH = 8


@dataclass(frozen=True)
class CompositionConfig:
    architecture: ClassVar[str] = "composition"
    pooled_span: ClassVar[PooledSpan] = ALL_TOKENS

    vocabulary_size: int
    width: int
    feed_forward_width: int = 0
    layers: int = 0

    @classmethod
    def read(cls, config: Mapping[str, Any], _token_dropout: str) -> CompositionConfig:
        return cls(size(config, "vocab_size"), size(config, "hidden_size"))


class Composition(PackedEncoder):
    """No layers: a vector is the mean of the vectors of a protein's tokens."""

    def states(
        self, tokens_t: torch.Tensor, lengths: Sequence[int], layers: Collection[int]
    ) -> Iterator[torch.Tensor]:
        assert sum(lengths) == len(tokens_t)
        assert set(layers) == {0}
        yield self.token_embeddings(tokens_t)


def load_composition(
    files: ModelFiles, *, device: torch.device, dtype: torch.dtype, config: CompositionConfig
) -> Composition:
    parts = {"token_embeddings.weight": ["letters"]}
    checkpoint = Checkpoint(files.id, files.tensors(), "")
    return build(lambda: Composition(config), checkpoint, parts, lambda _: False, device=device, dtype=dtype)


COMPOSITION = Architecture(
    title="Composition",
    sequence_type=SequenceType.PROTEIN,
    model_types=("composition",),
    config=CompositionConfig,
    read_config=CompositionConfig.read,
    load_tokenizer=lambda files: ResidueTokenizer(),
    loader=f"{__name__}:load_composition",
)


@pytest.fixture
def letters() -> torch.Tensor:
    return torch.randn(len(ESM_VOCABULARY), WIDTH, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def options(letters: torch.Tensor, tmp_path: Path) -> Options:
    """Options that name a checkpoint of the kind."""
    config = {"model_type": "composition", "vocab_size": len(letters), "hidden_size": WIDTH}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"letters": letters}, str(tmp_path / "model.safetensors"))
    return Options(protein_model=str(tmp_path), device="cpu")


def test_an_encoder_in_the_table_makes_files_like_any_other(
    options: Options, letters: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "ARCHITECTURES", (*architectures.ARCHITECTURES, COMPOSITION))
    fasta, output = tmp_path / "some.fa", tmp_path / "some_ESM.pt"
    proteins = {"long": "MKVLAAGICWWDE", "short": "GA", "other": "MTTQ"}
    fasta.write_text("".join(f">{name}\n{protein}\n" for name, protein in proteins.items()))

    encoder = encoders.load(encoders.identify(options, SequenceType.PROTEIN), options)
    encoder.extract(fasta, output)

    rows = {token: row.numpy() for token, row in zip(ESM_VOCABULARY, letters, strict=True)}
    expected = [
        np.mean([rows[t] for t in ("<cls>", *protein, "<eos>")], axis=0) for protein in proteins.values()
    ]
    vectors = read_vectors(output, SequenceType.PROTEIN)
    np.testing.assert_allclose(vectors.vectors, expected, atol=1e-6)
    assert list(vectors.ids) == list(proteins)
    made_by = encoder.recipe.made_by
    assert (made_by["architecture"], made_by["width"], made_by["pooling"]) == (
        "composition",
        WIDTH,
        "mean of all tokens",
    )


def test_a_kind_that_is_not_in_the_table_is_refused_with_what_is(options: Options, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        encoders.identify(options, SequenceType.PROTEIN)
    assert str(caught.value) == (
        f"{tmp_path.name}: model_type is 'composition' in config.json; allowed for the protein model: "
        "esm or fast_esm (ESM-2); name a model of one of these, or add its architecture (see CONTRIBUTING.md)"
    )


def test_an_encoder_of_one_sequence_type_is_none_of_the_other(options: Options) -> None:
    files = locate(options.protein_model)
    with pytest.raises(ModelError, match=r"allowed for the DNA model: bert \(DNABERT-S\)"):
        architectures.architecture_of(replace(files, config={"model_type": "esm"}), SequenceType.DNA)


def test_a_configuration_that_is_refused_is_named_with_its_folder(tmp_path: Path) -> None:
    files = ModelFiles("model", None, tmp_path, {"model_type": "fast_esm", "vocab_size": []}, ())
    with pytest.raises(ModelError, match=rf"^{tmp_path}: config.json: vocab_size is \[\]; it must be"):
        architectures.architecture_of(files, SequenceType.PROTEIN).config_of(files, "auto")
