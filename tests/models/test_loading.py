"""Checkpoints on disk: every accepted layout gives the same numbers, everything else is refused in words."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import random_esm
from nucpro.errors import ModelError
from nucpro.models.architectures import load_tokenizer
from nucpro.models.esm2 import load_esm2
from nucpro.models.loading import HEADS
from nucpro.models.weights import locate

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
FREQUENCIES = "encoder.layer.*.attention.self.rotary_embeddings.inv_freq"
QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return random_esm.save(random_esm.model(), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "my model")


def load(folder, dtype=torch.float32):
    return load_esm2(locate(str(folder)), device=CPU, dtype=dtype)


def rewrite(folder, change):
    """Change the tensors of a checkpoint, given as a dictionary that is edited in place."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def as_pickle(folder, content=None):
    content = load_file(folder / WEIGHTS) if content is None else content
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / "pytorch_model.bin")


def as_shards(folder, suffix):
    names = sorted(load_file(folder / WEIGHTS))
    halves = {f"{suffix[0]}-0000{n + 1}-of-00002.{suffix[1]}": names[n::2] for n in range(2)}
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    for shard, half in halves.items():
        write = save_file if suffix[1] == "safetensors" else torch.save
        write({name: tensors[name] for name in half}, folder / shard)
    weight_map = {name: shard for shard, half in halves.items() for name in half}
    index = folder / f"{'.'.join(suffix)}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def with_prefix_and_heads(tensors):
    for name in list(tensors):
        tensors[f"esm.{name}"] = tensors.pop(name)
    tensors |= {
        "lm_head.bias": torch.zeros(33),
        "classifier.dense.weight": torch.full((2, 2), float("nan")),
        "esm.pooler.dense.bias": torch.zeros(64),
        "esm.embeddings.position_ids": torch.arange(1026)[None],
        "esm.embeddings.position_embeddings.weight": torch.zeros(1026, 64),
    }


def with_norms_of_today(tensors):
    for name in list(tensors):
        new = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        tensors[new] = tensors.pop(name)


LAYOUTS = {
    "norms of today": lambda folder: rewrite(folder, with_norms_of_today),
    "prefix and heads": lambda folder: rewrite(folder, with_prefix_and_heads),
    "pickle": as_pickle,
    "safetensors shards": lambda folder: as_shards(folder, ("model", "safetensors")),
    "pickle shards": lambda folder: as_shards(folder, ("pytorch_model", "bin")),
    "another name": lambda folder: (folder / WEIGHTS).rename(folder / "esm2.safetensors"),
    "float64": lambda folder: rewrite(
        folder, lambda tensors: tensors.update({name: tensor.double() for name, tensor in tensors.items()})
    ),
    "safetensors wins over a pickle": lambda folder: (folder / "pytorch_model.bin").write_bytes(b"not read"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_gives_the_same_encoder(saved, folder, layout):
    layout(folder)
    expected, actual = load(saved).state_dict(), load(folder).state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_heads_are_left_out_by_name_and_said_once(saved, folder, caplog):
    heads = {f"{name}x.weight": torch.full((2, 2), float("nan")) for name in HEADS}
    rewrite(folder, lambda tensors: tensors.update(heads))
    with caplog.at_level("INFO"):
        actual = load(folder).state_dict()
    assert all(torch.equal(value, actual[name]) for name, value in load(saved).state_dict().items())
    (line,) = [record.message for record in caplog.records if "heads" in record.message]
    assert all(name.rstrip(".") in line for name in HEADS)


def test_a_linked_folder_and_one_with_a_slash_are_found(saved, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    assert locate(f"{tmp_path / 'link'}/").weights[0].name == WEIGHTS


def put(name, value):
    return lambda tensors: tensors.update({name: value})


def damage(name, value):
    def change(tensors):
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[3:5] = value

    return change


REFUSED_TENSORS = {
    "missing": (
        lambda tensors: tensors.pop(QUERY),
        rf"{QUERY} missing from the weights, which hold \d+ tensors",
    ),
    "many missing": (
        lambda tensors: tensors.clear() or put("x", torch.ones(1))(tensors),
        r" and \d\d more missing",
    ),
    "surplus": (
        put("encoder.adapter.weight", torch.ones(2)),
        "encoder.adapter.weight in the weights have no place",
    ),
    "a layer more than config.json says": (
        put("encoder.layer.3.output.dense.bias", torch.ones(64)),
        r"encoder\.layer\.3\.output\.dense\.bias in the weights have no place",
    ),
    "shape": (
        put(QUERY, torch.ones(64, 32)),
        rf"{QUERY} is float32 of shape \(64, 32\), but config.json makes it floats of shape \(64, 64\)",
    ),
    "transposed": (
        put("encoder.layer.0.intermediate.dense.weight", torch.ones(64, 128)),
        r"is float32 of shape \(64, 128\), but config.json makes it floats of shape \(128, 64\)",
    ),
    "integers": (put(QUERY, torch.ones(64, 64, dtype=torch.int8)), rf"{QUERY} is int8 of shape"),
    "not a number": (
        damage(QUERY, float("nan")),
        rf"{QUERY} holds 2 of 4096 values that are NaN or infinite",
    ),
    "infinite": (damage(QUERY, float("inf")), rf"{QUERY} holds 2 of 4096 values that are NaN or infinite"),
    "twice": (
        put(f"esm.{QUERY}", torch.ones(64, 64)),
        rf"a tensor has two names, {QUERY} and esm.{QUERY}; save",
    ),
    "frequencies differ": (
        put("rotary_embeddings.inv_freq", (10000.0 ** -(torch.arange(0, 16, 2) / 16)).half().float()),
        "all layers of an ESM-2 share one set of rotary frequencies",
    ),
    "frequencies of another base": (
        put(FREQUENCIES, 500.0 ** -(torch.arange(0, 16, 2) / 16)),
        r"deviates by [\d.]+ from those that rope_theta in config.json gives",
    ),
    "frequencies are not finite": (
        put(FREQUENCIES, torch.full((8,), float("nan"))),
        "deviates by nan",
    ),
    "frequencies of another head width": (
        put(FREQUENCIES, torch.ones(4)),
        r"has the shape \(4,\); config.json makes it \(8,\)",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED_TENSORS.values(), ids=REFUSED_TENSORS.keys())
def test_weights_that_do_not_fit_are_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ModelError, match=f"^my model: .*({message})"):
        load(folder)


def test_a_value_too_large_for_half_precision_is_refused(folder):
    rewrite(folder, damage(QUERY, 1e6))
    load(folder)
    with pytest.raises(
        ModelError, match=rf"{QUERY} holds 1e\+06, which is too large for torch.float16; .* fp32"
    ):
        load(folder, torch.float16)
    rewrite(
        folder,
        lambda tensors: tensors.update({QUERY: torch.full_like(tensors[QUERY], 1e300, dtype=torch.float64)}),
    )
    with pytest.raises(ModelError, match=rf"{QUERY} holds 1e\+300, .* torch.float32; fetch the model again"):
        load(folder)


@pytest.mark.parametrize(
    "kept", [0, 7, 1000, -1], ids=["nothing", "half a number", "half a header", "all but a byte"]
)
def test_a_truncated_safetensors_file_is_refused(folder, kept):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:kept])
    with pytest.raises(
        ModelError,
        match=r"model\.safetensors: (this is an empty file|not a whole safetensors file \().*fetch the model again",
    ):
        load(folder)


@pytest.mark.parametrize("kept", [0, 100, -1000], ids=["nothing", "the start", "without its end"])
def test_a_truncated_pickle_is_refused(folder, kept):
    as_pickle(folder)
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        ModelError,
        match=r"pytorch_model\.bin: (this is an empty file|not a whole PyTorch weights file \().*fetch",
    ):
        load(folder)


class Hostile:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_that_wants_to_run_code_is_refused_by_name(folder, tmp_path):
    as_pickle(folder, {"weight": Hostile(tmp_path / "marker")})
    with pytest.raises(
        ModelError, match=r"pytorch_model\.bin: refused, the file wants to call posix\.mkdir; weights"
    ):
        load(folder)
    assert not (tmp_path / "marker").exists()


def test_a_plain_pickle_is_not_even_opened(folder, tmp_path):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "marker")))
    with pytest.raises(
        ModelError, match=r"no zip archive; \d+ bytes.*before PyTorch 1\.6 must be saved again"
    ):
        load(folder)
    assert not (tmp_path / "marker").exists()


def test_a_pickle_with_a_damaged_inside_is_refused(folder):
    as_pickle(folder)
    file = folder / "pytorch_model.bin"
    content = bytearray(file.read_bytes())
    start = content.index(b"data.pkl") + 8
    content[start + 60 : start + 400] = bytes(340)
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: damaged PyTorch weights file \(.*fetch"):
        load(folder)


def test_a_pickle_of_something_else_is_refused(folder):
    as_pickle(folder, {"state_dict": {"weight": torch.ones(1)}})
    with pytest.raises(ModelError, match="'state_dict' is a dict; a checkpoint maps names to tensors"):
        load(folder)
    torch.save([torch.ones(1)], folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds a list; a checkpoint is a mapping of names to tensors"):
        load(folder)


def test_the_vocabulary_comes_with_the_weights(folder):
    tokens = random_esm.ESM_VOCABULARY
    (folder / "vocab.txt").write_text("\n".join(tokens[::-1]))
    assert load_tokenizer(locate(str(folder))).vocabulary == tokens[::-1]
    (folder / "vocab.txt").unlink()
    assert load_tokenizer(locate(str(folder))).vocabulary == tokens


def test_a_vocabulary_larger_than_the_embedding_is_refused(folder):
    (folder / "vocab.txt").write_text("\n".join([*random_esm.ESM_VOCABULARY, "<one more>"]))
    with pytest.raises(
        ModelError, match=r"my model: the vocabulary has 34 tokens, but config.json has vocab_size 33"
    ):
        load_tokenizer(locate(str(folder)))


def test_a_git_lfs_pointer_is_explained(folder):
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(
        ModelError, match="this is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"
    ):
        load(folder)


def test_a_name_in_two_shards_is_refused(folder):
    as_shards(folder, ("model", "safetensors"))
    shards = sorted(folder.glob("model-*"))
    shutil.copy(shards[0], shards[1])
    with pytest.raises(ModelError, match=r"model-00002-of-00002.safetensors: '.*' is in another shard too"):
        load(folder)


LOAD_AND_ENCODE = """
import sys, torch
from nucpro.models.esm2 import load_esm2
from nucpro.models.weights import locate
model = load_esm2(locate(sys.argv[1]), device=torch.device("cpu"), dtype=torch.float32)
model(torch.tensor([0, 5, 2]), [3])
print(sorted({name.split(".")[0] for name in sys.modules} & {"sympy"}), "torch._dynamo" in sys.modules)
"""


def test_loading_does_not_wake_the_compiler_of_torch(saved):
    """Its import takes longer than everything else at the start of a run, and nothing here is compiled by it."""
    ran = subprocess.run(
        [sys.executable, "-c", LOAD_AND_ENCODE, str(saved)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split("\n")[0] == "[] False"
