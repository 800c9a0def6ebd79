"""The names that VirNucPro scripts import from ``units``, used as those scripts use them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import random_esm
import stand_ins
import units
from folders import PER_FILE, WIDTH, arguments, contents, edited, options_with, pairs_of
from nucpro.cli import main as nucpro
from nucpro.embedding import encoder as encoders
from nucpro.embedding.encoder import FastaEncoder
from nucpro.errors import MergeError, ModelError, UsageError
from nucpro.folder.paths import FilePair
from nucpro.formats import read_merged
from nucpro.formats.fasta import read
from nucpro.formats.sequences import SequenceType
from nucpro.inspection.files import inspect as inspect_file
from nucpro.options import Options


@pytest.fixture
def encoder(model: Path) -> FastaEncoder:
    return random_esm.encoder_of(model)


@pytest.fixture
def pair(data: Path) -> FilePair:
    return pairs_of(data)[0]


def test_a_hugging_face_model_and_its_tokenizer_can_be_passed(
    data: Path, model: Path, encoder, tmp_path: Path
) -> None:
    from transformers import AutoModel, EsmTokenizer
    from transformers.utils.logging import disable_progress_bar

    from nucpro.models.tokens import ESM_VOCABULARY

    disable_progress_bar()
    pair = pairs_of(data)[0]
    expected = encoder.embed(read(pair.protein_fasta)).matrix
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(ESM_VOCABULARY))
    loaded = AutoModel.from_pretrained(model, add_pooling_layer=False)
    output = tmp_path / "out_ESM.pt"
    proteins, vectors = units.extract_fast_esm(
        str(pair.protein_fasta), str(output), loaded, EsmTokenizer(str(vocabulary))
    )
    assert proteins == read(pair.protein_fasta).ids
    assert all(vector.shape == (WIDTH,) and vector.dtype == torch.float32 for vector in vectors)
    np.testing.assert_allclose(torch.stack(vectors).numpy(), expected, atol=1e-5)
    stored = torch.load(output, weights_only=True)
    assert torch.equal(torch.stack(stored["data"]), torch.stack(vectors))


def test_a_model_of_another_kind_is_refused_by_name(data: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=40
    )
    with pytest.raises(ModelError, match="model_type is 'bert'"):
        units.extract_fast_esm(pairs_of(data)[0].protein_fasta, model=BertModel(config))


def test_sequences_are_cut_where_the_caller_says(data: Path, encoder) -> None:
    path = pairs_of(data)[0].protein_fasta
    short = units.extract_fast_esm(path, model=encoder, truncation_seq_length=10)[1]
    whole = units.extract_fast_esm(path, model=encoder, toks_per_batch=50)[1]
    assert not torch.allclose(torch.stack(short), torch.stack(whole))


def test_merge_data_takes_the_class_from_its_argument_alone(data: Path, tmp_path: Path, encoder) -> None:
    """Prediction scripts name none, and no folder's name may turn what they merge into training data."""
    pair = pairs_of(data)[0]
    encoder.extract(pair.protein_fasta, pair.protein_vectors)
    for data_type, labels in (("viral", [1]), ("host", [0]), (None, None)):
        merged = tmp_path / "viral.1.1_merged" / f"{data_type}.pt"
        given = () if data_type is None else (data_type,)
        units.merge_data(
            str(pair.dna_vectors), str(pair.protein_vectors), str(merged), *given, protein_dim=WIDTH
        )
        stored = torch.load(merged, weights_only=True)
        assert stored.get("labels") == labels
        assert stored.keys() - {"labels", "meta"} == {"ids", "data"}
        assert (read_merged(merged).label, inspect_file(merged)["class"]) == (labels and labels[0], data_type)
    with pytest.raises(UsageError, match="data_type is 'virus'; allowed: host, viral or None"):
        units.merge_data(pair.dna_vectors, pair.protein_vectors, tmp_path / "m.pt", "virus")


def test_merge_data_checks_the_widths(data: Path, tmp_path: Path, encoder) -> None:
    pair = pairs_of(data)[0]
    encoder.extract(pair.protein_fasta, pair.protein_vectors)
    with pytest.raises(units.DimensionError, match="width of the protein vectors: expected 1280") as caught:
        units.merge_data(pair.dna_vectors, pair.protein_vectors, tmp_path / "m.pt", "viral")
    assert (caught.value.expected_dim, caught.value.actual_dim) == (1280, WIDTH)
    assert caught.value.location == str(pair.protein_vectors)
    with pytest.raises(units.DimensionError, match="width of the protein vectors: expected 2560"):
        units.merge_data(pair.dna_vectors, pair.protein_vectors, tmp_path / "m.pt", protein_dim=2560)
    assert not (tmp_path / "m.pt").exists()


def test_files_without_a_class_are_no_training_data(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nucpro(["extract", *arguments(data, model)]) == 0
    expected = contents(data)
    pair = pairs_of(data)[0]
    units.merge_data(pair.dna_vectors, pair.protein_vectors, pair.merged, protein_dim=WIDTH)
    outside = pair.merged.with_name("output_77_merged.pt")
    outside.write_bytes(pair.merged.read_bytes())
    capsys.readouterr()
    folder = ["--sequences-per-file", str(PER_FILE)]
    message = "has no 'labels': it was merged without a class; run nucpro extract DATA"
    for command, code, named in (
        (["validate", str(data), *folder], 1, {pair.merged, outside}),
        (["train", str(data), "--device", "cpu"], 3, {pair.merged, outside}),
        (["export", str(data), "--to", "npz", *folder], 1, {pair.merged}),
    ):
        assert nucpro(command) == code
        said = capsys.readouterr().err
        assert all(f"{path}: {message}" in said for path in named), said
    outside.unlink()
    assert nucpro(["extract", *arguments(data, model)]) == 0
    assert f"output_1_merged.pt has no label: merged again ({pair.merged})" in capsys.readouterr().out
    assert contents(data) == expected


def test_dimension_checks_name_the_sequence() -> None:
    dna, protein = torch.zeros(768), torch.zeros(1280)
    units.validate_merge_inputs(dna, protein, "a")
    units.validate_merged_output(torch.zeros(3, 2048))
    with pytest.raises(
        units.DimensionError, match="b: width of the protein vector: expected 1280, found 2560"
    ):
        units.validate_merge_inputs(dna, torch.zeros(2560), "b")
    with pytest.raises(units.DimensionError, match="c: width of the DNA vector"):
        units.validate_merge_inputs(protein, protein, "c")
    with pytest.raises(units.DimensionError, match="columns: expected 2048, found 3328"):
        units.validate_merged_output(torch.zeros(3, 3328))
    assert (units.DNA_DIM, units.PROTEIN_DIM, units.MERGED_DIM) == (768, 1280, 2048)


def test_splitting_and_chunking_by_their_old_names(tmp_path: Path) -> None:
    whole = tmp_path / "whole.fa"
    whole.write_text("".join(f">r{n}\n{'ACGTA' * 60}A\n" for n in range(5)))
    assert units.split_fasta_file(whole, tmp_path / "parts", 2) == 3
    assert read(tmp_path / "parts" / "output_3.fa").ids == ["r4"]
    units.split_fasta_chunk(whole, tmp_path / "chunks.fa", 300)
    chunks = read(tmp_path / "chunks.fa")
    assert chunks.ids[:2] == ["r0_chunk_1", "r0_chunk_2"]
    assert [len(sequence) for sequence in chunks.sequences[:2]] == [300, 151]


def test_ids_in_one_file_stop_merge_data(data: Path, tmp_path: Path, encoder) -> None:
    first, second = pairs_of(data)[:2]
    encoder.extract(first.protein_fasta, tmp_path / "p.pt")
    with pytest.raises(MergeError, match="only in the DNA file"):
        units.merge_data(second.dna_vectors, tmp_path / "p.pt", tmp_path / "m.pt", "viral", protein_dim=WIDTH)
    assert not (tmp_path / "m.pt").exists()


def test_vectors_that_are_current_are_read_and_not_made(
    pair: FilePair, model: Path, encoder: FastaEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = units.extract_fast_esm(pair.protein_fasta, pair.protein_vectors, encoder)
    stamp = pair.protein_vectors.stat()
    # The default model would be loaded on a GPU that no machine has: it is only identified.
    options_with(monkeypatch, protein_model=str(model), device="cuda:99", precision="fp32")
    for given in (encoder, None):
        again = units.extract_fast_esm(str(pair.protein_fasta), str(pair.protein_vectors), given)
        assert again[0] == first[0]
        assert torch.equal(torch.stack(again[1]), torch.stack(first[1]))
        again[1][0][0] = 1.0  # theirs to change
    assert (pair.protein_vectors.stat().st_ino, pair.protein_vectors.stat().st_mtime_ns) == (
        stamp.st_ino,
        stamp.st_mtime_ns,
    )
    assert encoder.totals.tokens == sum(len(sequence) + 2 for sequence in read(pair.protein_fasta).sequences)


def other_fasta(pair: FilePair) -> None:
    pair.protein_fasta.write_text(pair.protein_fasta.read_text().replace("A", "G"))


def other_width(pair: FilePair) -> None:
    stand_ins.write_old_protein(pair.protein_vectors, read(pair.protein_fasta).ids)


def no_meta(pair: FilePair) -> None:
    with edited(pair.protein_vectors) as content:
        del content["meta"]


def damaged(pair: FilePair) -> None:
    pair.protein_vectors.write_bytes(pair.protein_vectors.read_bytes()[:-100])


def other_ids(pair: FilePair) -> None:
    with edited(pair.protein_vectors) as content:
        content["proteins"][0] = "stranger"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_fasta, "was made from another FASTA"),
        (other_width, "is 2560 wide, not 16"),
        (no_meta, "has no provenance metadata"),
        (damaged, "cannot be used"),
        (other_ids, "holds other ids than its FASTA"),
    ],
)
def test_vectors_that_are_not_current_are_made_and_the_log_says_why(
    pair: FilePair,
    encoder: FastaEncoder,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[FilePair], None],
    reason: str,
) -> None:
    caplog.set_level(logging.INFO, "nucpro.units")
    units.extract_fast_esm(pair.protein_fasta, pair.protein_vectors, encoder)
    assert not caplog.messages
    change(pair)
    proteins, vectors = units.extract_fast_esm(pair.protein_fasta, pair.protein_vectors, encoder)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"output_1_ESM.pt {reason}")
    expected = encoder.embed(read(pair.protein_fasta))
    assert proteins == list(expected.names)
    assert torch.equal(torch.stack(vectors), torch.from_numpy(expected.matrix))
    stored = torch.load(pair.protein_vectors, weights_only=True)
    assert torch.equal(torch.stack(stored["data"]), torch.stack(vectors))


def test_vectors_of_another_length_are_made(pair: FilePair, encoder: FastaEncoder) -> None:
    whole = units.extract_fast_esm(pair.protein_fasta, pair.protein_vectors, encoder)[1]
    short = units.extract_fast_esm(pair.protein_fasta, pair.protein_vectors, encoder, None, 10)[1]
    assert not torch.equal(torch.stack(whole), torch.stack(short))
    again = units.extract_fast_esm(pair.protein_fasta, pair.protein_vectors, encoder, None, 10)[1]
    assert torch.equal(torch.stack(again), torch.stack(short))


def test_dna_vectors_by_their_old_name(pair: FilePair, dna_model: Path, encoder: FastaEncoder) -> None:
    options = Options(dna_model=str(dna_model), device="cpu")
    dna = encoders.load(encoders.identify(options, SequenceType.DNA), options)
    pair.dna_vectors.unlink()
    units.extract_DNABERT_S(str(pair.nucleotide_fasta), str(pair.dna_vectors), model_loaded=True, model=dna)
    content = torch.load(pair.dna_vectors, weights_only=True)
    expected = dna.embed(read(pair.nucleotide_fasta))
    assert content["nucleotide"] == list(expected.names)
    assert torch.equal(
        torch.stack([row["mean_representation"] for row in content["data"]]),
        torch.from_numpy(expected.matrix),
    )
    before = pair.dna_vectors.stat().st_ino
    units.extract_DNABERT_S(pair.nucleotide_fasta, pair.dna_vectors, True, None, dna)
    assert pair.dna_vectors.stat().st_ino == before
    for arguments_, message in (
        ((False, None, dna), "model_loaded is False, but model is"),
        ((True, object(), dna), "takes no tokenizer"),
        ((True, None, torch.nn.Linear(1, 1)), "a Linear cannot be used as DNABERT-S"),
        ((True, None, encoder), "the model reads protein sequences, but dna sequences"),
    ):
        with pytest.raises(UsageError, match=message):
            units.extract_DNABERT_S(pair.nucleotide_fasta, pair.dna_vectors, *arguments_)


def test_names_and_signatures_are_those_of_existing_scripts() -> None:
    assert (units.CHECKPOINT_VERSION, units.VALIDATE_DIMS) == ("2.0.0", True)
    expected = {
        "extract_fast_esm": "fasta_file out_file model tokenizer truncation_seq_length toks_per_batch",
        "extract_DNABERT_S": "input_file out_file model_loaded tokenizer model",
        "merge_data": "DNABERT_S_data ESM_data merged_file data_type",
        "split_fasta_chunk": "input_file output_file chunk_size",
        "split_fasta_file": "input_file output_dir sequences_per_file",
        "validate_embeddings": "proteins data expected_dim",
        "validate_merge_inputs": "nucleotide_tensor protein_tensor seq_id",
        "validate_merged_output": "merged_tensor seq_id",
        "validate_protein_embeddings": "proteins data",
        "DimensionError": "expected_dim actual_dim tensor_name location",
    }
    for name, parameters in expected.items():
        found = inspect.signature(getattr(units, name)).parameters.values()
        positional = [parameter.name for parameter in found if parameter.kind is not parameter.KEYWORD_ONLY]
        assert positional == parameters.split(), name


def test_a_dimension_error_is_raised_and_read_as_scripts_do() -> None:
    error = units.DimensionError(
        expected_dim=2048, actual_dim=3328, tensor_name="model_input", location="MLPClassifier.forward()"
    )
    assert str(error) == "MLPClassifier.forward(): model_input: expected 2048, found 3328"
    parts = (error.expected_dim, error.actual_dim, error.tensor_name, error.location)
    assert parts == (2048, 3328, "model_input", "MLPClassifier.forward()")
    assert str(units.DimensionError(1280, 2560)) == "expected 1280, found 2560"


def test_embeddings_are_checked_by_their_old_names() -> None:
    good, wide = torch.ones(1280), torch.ones(2560)
    units.validate_protein_embeddings(["a", "b"], [good, good])
    with pytest.raises(units.DimensionError, match="b: width of the protein vector") as caught:
        units.validate_protein_embeddings(["a", "b"], [good, wide])
    assert (caught.value.expected_dim, caught.value.actual_dim) == (1280, 2560)
    with pytest.raises(units.DimensionError, match=r"expected 1280, found \(1, 1280\)"):
        units.validate_protein_embeddings(["a"], [good[None]])
    with pytest.raises(UsageError, match="2 names for 1 vectors"):
        units.validate_protein_embeddings(["a", "b"], [good])
    bad = torch.full((1280,), float("nan"))
    assert units.validate_embeddings(["a"], [good]) == []
    assert units.validate_embeddings(["a", "b"], [wide, bad]) == [
        "a: width of the protein vector: expected 1280, found 2560",
        "b: 1280 of 1280 values are NaN or infinite",
    ]
    assert units.validate_embeddings(["a"], [wide], expected_dim=2560) == []


def test_files_of_other_scripts_are_merged(tmp_path: Path) -> None:
    """As scripts write them to try ``merge_data``: rows without the label that repeats the id, short names."""
    names = ["seq1", "seq2"]
    dna = [{"mean_representation": torch.randn(units.DNA_DIM).tolist()} for _ in names]
    torch.save({"nucleotide": names, "data": dna}, tmp_path / "dna.pt")
    protein = [torch.randn(units.PROTEIN_DIM) for _ in names]
    torch.save({"proteins": names, "data": protein}, tmp_path / "protein.pt")
    units.merge_data(tmp_path / "dna.pt", tmp_path / "protein.pt", tmp_path / "merged.pt")
    merged = torch.load(tmp_path / "merged.pt", weights_only=True)
    assert merged["data"].shape == (2, units.MERGED_DIM)
    assert torch.equal(merged["data"][:, units.DNA_DIM :], torch.stack(protein))
    assert "labels" not in merged
