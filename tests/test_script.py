"""The script and the names that VirNucPro scripts import, used as those scripts use them."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import units
from folders import PER_FILE, WIDTH, arguments, contents, copied, pairs_of
from nucpro.cli import main as nucpro
from nucpro.errors import MergeError, ModelError, PreflightError, UsageError
from nucpro.fasta import read
from nucpro.options import Options

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import extract_training_data as script  # noqa: E402

import features_extract  # noqa: E402
import train  # noqa: E402


@pytest.fixture
def encoder(model: Path):
    from nucpro import encoders
    from nucpro.layout import Side

    options = Options(protein_model=str(model), device="cpu")
    return encoders.load(encoders.identify(options, Side.PROTEIN), options)


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are called alone take the usual number of sequences a file; the folders of tests are smaller."""
    monkeypatch.setattr(Options.__dataclass_fields__["sequences_per_file"], "default", PER_FILE)
    defaults = list(Options.__init__.__defaults__ or ())
    names = [name for name, p in inspect.signature(Options).parameters.items() if p.default is not p.empty]
    defaults[names.index("sequences_per_file")] = PER_FILE
    monkeypatch.setattr(Options.__init__, "__defaults__", tuple(defaults))


def test_the_script_does_the_same_as_the_command(pristine: Path, model: Path, tmp_path: Path) -> None:
    by_script, by_command = copied(pristine, tmp_path / "script"), copied(pristine, tmp_path / "command")
    command = [sys.executable, str(ROOT / "scripts" / "extract_training_data.py")]
    done = subprocess.run(
        [*command, *arguments(by_script, model)], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert nucpro(["extract", *arguments(by_command, model)]) == 0
    assert contents(by_script) == contents(by_command)
    assert done.stdout.splitlines()[-1].startswith("Validation passed: 6 files, 24 sequences")
    assert "tokens/s" in done.stdout
    assert not re.search(r"(?<![\d,])0 tokens/s", done.stdout)


def test_the_script_runs_where_nothing_is_installed(data: Path, model: Path) -> None:
    """Its clone and the dependencies are enough: no installed package, any working directory."""
    site = Path(torch.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-S", str(ROOT / "scripts" / "extract_training_data.py"), "--dry-run"]
    done = subprocess.run(
        [*command, *arguments(data, model)],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_eight_functions_one_after_the_other(data: Path, encoder) -> None:
    checkpoint = data / ".extraction_checkpoint.json"
    viral, hosts = script.discover_training_data(data)
    assert [Path(path).name for path in viral] == ["output_1.fa", "output_2.fa", "output_3.fa"]
    assert len(hosts) == 3
    script.validate_prerequisites(viral, hosts)
    proteins = [[path.replace("_nucleotide/", "_protein/") for path in files] for files in (viral, hosts)]
    assert script.extract_all(*proteins, encoder, None, checkpoint) == 6
    assert script.extract_all(*proteins, encoder, None, checkpoint) == 0
    assert script.merge_all(viral, hosts) == 6
    script.validate_all(data)
    script.save_checkpoint(checkpoint, ["a/output_1.fa"], "2026-01-01T00:00:00+00:00")
    loaded = script.load_checkpoint(checkpoint)
    assert loaded == {"completed_files": ["a/output_1.fa"], "started_at": "2026-01-01T00:00:00+00:00"}
    assert json.loads(checkpoint.read_text())["last_update"] > "2026-01-01"


def test_missing_dna_files_stop_the_prerequisites(data: Path) -> None:
    viral, hosts = script.discover_training_data(data)
    gone = Path(viral[0]).with_name("output_1_DNABERT_S.pt")
    gone.unlink()
    with pytest.raises(PreflightError, match="1 DNABERT-S files are missing") as caught:
        script.validate_prerequisites(viral, hosts)
    assert str(gone) in str(caught.value)


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


def test_merge_data_needs_a_class(data: Path, tmp_path: Path, encoder) -> None:
    pair = pairs_of(data)[0]
    encoder.extract(pair.protein_fasta, pair.protein_vectors)
    merged = tmp_path / "viral.1.1_merged" / "m.pt"
    units.merge_data(pair.dna_vectors, pair.protein_vectors, merged)
    assert torch.load(merged, weights_only=True)["labels"] == [1]
    units.merge_data(str(pair.dna_vectors), str(pair.protein_vectors), str(tmp_path / "h.pt"), "host")
    assert torch.load(tmp_path / "h.pt", weights_only=True)["labels"] == [0]
    with pytest.raises(UsageError, match="data_type is None; allowed: host, viral"):
        units.merge_data(pair.dna_vectors, pair.protein_vectors, tmp_path / "m.pt")


def test_dimension_checks_name_the_sequence() -> None:
    dna, protein = torch.zeros(768), torch.zeros(1280)
    units.validate_merge_inputs(dna, protein, "a")
    units.validate_merged_output(torch.zeros(3, 2048))
    with pytest.raises(units.DimensionError, match=r"b: shape of the protein .* \(1280,\), found \(2560,\)"):
        units.validate_merge_inputs(dna, torch.zeros(2560), "b")
    with pytest.raises(units.DimensionError, match=r"c: shape of the DNA vector"):
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


def test_ids_on_one_side_stop_merge_data(data: Path, tmp_path: Path, encoder) -> None:
    first, second = pairs_of(data)[:2]
    encoder.extract(first.protein_fasta, tmp_path / "p.pt")
    with pytest.raises(MergeError, match="only on the DNA side"):
        units.merge_data(second.dna_vectors, tmp_path / "p.pt", tmp_path / "m.pt", "viral")
    assert not (tmp_path / "m.pt").exists()


def test_the_recipe_shows_what_it_is_made_of() -> None:
    text = (ROOT / "scripts" / "extract_training_data.py").read_text()
    assert len(text.splitlines()) >= 150
    for part in ("os.walk(data_dir", "DNABERT_S", "checkpoint", "tqdm", "PROTEIN_DIM", "MERGED_DIM"):
        assert part in text
    names = ("discover_training_data", "load_checkpoint", "save_checkpoint", "validate_prerequisites")
    for name in (*names, "extract_all", "merge_all", "validate_all", "main"):
        assert callable(getattr(script, name))


def test_features_extract_does_dna_too(
    pristine: Path, model: Path, dna_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied(pristine, tmp_path / "data")
    kept = [path for path in data.rglob("*_DNABERT_S.pt") if path.name == "output_1_DNABERT_S.pt"]
    before = {path: path.read_bytes() for path in kept}
    (data / "viral.1.1.identified_nucleotide" / "output_3_DNABERT_S.pt").unlink()
    assert features_extract.main([*arguments(data, model), "--dna-model", str(dna_model)]) == 0
    assert "Validation passed: 6 DNA files" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in kept} == before


def test_train_learns_from_what_the_job_made(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = [
        "--data-dir",
        str(data),
        "--device",
        "cpu",
        "--split-by",
        "file",
        "--epochs",
        "1",
        "--no-curves",
    ]
    assert train.main(recipe) == 1
    assert "one class only: 4 viral and 0 host rows" in capsys.readouterr().err
    assert nucpro(["extract", *arguments(data, model)]) == 0
    capsys.readouterr()
    assert train.main(recipe) == 0
    said = capsys.readouterr().out
    assert "Found 6 merged files with 24 rows of 768 dna and 16 protein columns" in said
    assert said.splitlines()[-1] == f"Model: {data / 'model'}"


def test_the_script_merges_what_is_left_to_merge(data: Path, model: Path) -> None:
    assert script.main(arguments(data, model)) == 0
    expected = contents(data)
    next(data.rglob("*_merged.pt")).unlink()
    assert script.main(arguments(data, model)) == 0
    assert contents(data) == expected


def test_a_dry_run_with_dna_shows_both_plans(
    data: Path, model: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = data / "viral.1.1.identified_nucleotide" / "output_3_DNABERT_S.pt"
    gone.unlink()
    more = ["--with-dna", "--dna-model", str(dna_model), "--dry-run"]
    assert script.main([*arguments(data, model), *more]) == 0
    output = capsys.readouterr().out
    assert f"make    {gone}" in output
    assert f"make    {data}/viral.1.1.identified_protein/output_3_ESM.pt" in output
    assert not gone.exists()


def test_with_dna_checks_the_protein_side_first(data: Path, model: Path, dna_model: Path) -> None:
    gone = data / "viral.1.1.identified_nucleotide" / "output_3_DNABERT_S.pt"
    gone.unlink()
    path = data / "viral.1.1.identified_protein" / "output_1.fa"
    path.write_text(path.read_text().replace("chunk_2F3", "chunk_9"))
    assert script.main([*arguments(data, model), "--with-dna", "--dna-model", str(dna_model)]) == 3
    assert not gone.exists()
