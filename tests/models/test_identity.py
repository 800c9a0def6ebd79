"""What goes into `meta`: the same for the same numbers, another for others, and never a path."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import random_esm
from nucpro.embedding.encoder import identity_of
from nucpro.embedding.identification import WeightsIdentity, describe_model, describe_options
from nucpro.models.config import RESIDUES_ONLY, Esm2Config
from nucpro.models.tokens import ESM_VOCABULARY, ResidueTokenizer
from nucpro.models.weights import locate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_esm.save(random_esm.model(), tmp_path_factory.mktemp("parent") / "tiny")


def describe(folder, token_dropout="auto", vocabulary=ESM_VOCABULARY):
    files = locate(str(folder))
    config = Esm2Config.from_dict(files.config, token_dropout)
    model = describe_model(WeightsIdentity.of_files(files), config, ResidueTokenizer(vocabulary))
    return model | describe_options("fp16", RESIDUES_ONLY, 1024)


def test_the_description_is_plain_and_names_no_path(folder):
    description = describe(folder)
    assert json.loads(json.dumps(description)) == description
    assert str(folder.parent) not in json.dumps(description)
    assert description == {
        "id": "tiny",
        "revision": None,
        "weights_sha256": locate(str(folder)).digest(),
        "architecture": "esm2",
        "vocabulary_size": 33,
        "width": 64,
        "layers": 3,
        "heads": 4,
        "feed_forward_width": 128,
        "norm_epsilon": 1e-5,
        "rotary_base": 10000.0,
        "vocabulary_sha256": ResidueTokenizer().digest(),
        "token_dropout": True,
        "precision": "fp16",
        "pooling": "mean of residues",
        "longest_input": 1024,
    }


def test_a_copy_is_the_same_model(folder, tmp_path):
    assert describe(shutil.copytree(folder, tmp_path / "tiny")) == describe(folder)


def test_what_changes_numbers_changes_the_description(folder, tmp_path):
    other = random_esm.save(random_esm.model(seed=1), tmp_path / "tiny")
    changed = [describe(other), describe(folder, "off"), describe(folder, vocabulary=ESM_VOCABULARY[::-1])]
    differing = [{key for key, value in describe(folder).items() if one[key] != value} for one in changed]
    assert differing == [{"weights_sha256"}, {"token_dropout"}, {"vocabulary_sha256"}]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("someone/tiny-esm2", "someone/tiny-esm2"),
        ("/data/models/tiny", "tiny"),
        ("a/b/tiny", "tiny"),
        ("", "EsmModel"),
    ],
)
def test_a_model_object_is_known_by_its_repository_or_folder(path, expected):
    esm = random_esm.model()
    esm.config._name_or_path = path
    assert identity_of(esm).id == expected


def test_a_model_object_is_identified_by_its_tensors():
    first, second = (identity_of(random_esm.model()) for _ in range(2))
    assert first == second
    assert identity_of(random_esm.model(seed=1)) != first
    assert identity_of(random_esm.model().to(torch.float16)) != first
