"""What people do by mistake, and what is said: one exit code and one message for one mistake, in every command."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from nucpro.cli import main
from nucpro.cli.main import commands_of, tree

NUCLEOTIDES = ">a\nACGTACGTACGTACGTACGTACGT\n>b\nTTTTACGTACGTACGTACGTACGA\n"
PROTEINS = ">a\nMKVLAA\n>b\nMGGTWL\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> Path:
    """A working directory with files of all kinds, good and bad."""
    monkeypatch.chdir(tmp_path)
    files = {
        "proteins.fa": PROTEINS,
        "contigs.fa": NUCLEOTIDES,
        "twice.fa": ">a\nMKV\n>a\nMKV\n",
        "stop.fa": ">a\nMK*\n",
        "empty.fa": "",
        "notes.txt": "hello\n",
        "page.html.fa": "<html>\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.fa").write_bytes(b"\xc0\x01\x02 garbage")
    (tmp_path / "cut.fa.gz").write_bytes(gzip.compress(PROTEINS.encode() * 1000)[:-20])
    for folder in ("empty", "model", "out"):
        (tmp_path / folder).mkdir()
    return tmp_path


def said(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what standard error holds."""
    try:
        code = main(words.split())
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, capsys.readouterr().err


NO_FOLDER = "nosuch: no such folder; give the path of the data folder"


@pytest.mark.parametrize(
    "words",
    [
        "extract nosuch",
        "extract --data-dir nosuch",
        "embed-dna nosuch",
        "validate nosuch",
        "status nosuch",
        "status nosuch --watch",
        "report nosuch",
        "export nosuch --to npz",
        "dataset nosuch --length 300",
        "split nosuch",
        "train nosuch --device cpu",
    ],
)
def test_a_folder_that_is_not_there(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(words, capsys)
    assert code == 3
    assert NO_FOLDER in text
    assert "--data-dir" not in text
    assert not (here / "nosuch").exists()


@pytest.mark.parametrize(
    "words", ["extract empty", "embed-dna empty", "validate empty", "status empty", "export empty --to npz"]
)
def test_a_folder_without_data(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(words, capsys)
    assert code == 3
    assert "no *identified_nucleotide.fa with records was found below the data folder" in text


@pytest.mark.parametrize(
    "words", ["predict INPUT --model model --device cpu", "embed INPUT -o out/x.pt --device cpu"]
)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch.fa", "nosuch.fa: cannot be read: No such file or directory; check the path"),
        ("empty", "empty: is a folder"),
        ("empty.fa", "empty.fa: the file is empty; remove it or write it again"),
        ("notes.txt", "it starts with 'hello'; the file must start with '>'"),
        ("page.html.fa", "it is a page of HTML or XML"),
        ("binary.fa", r"it starts with '\ufffd\x01\x02 garbage'; the file must start with '>'"),
        ("https://host/x.fa", "https:/host/x.fa: is an address, not a file; download it first"),
        ("s3://bucket/x.fa", "s3:/bucket/x.fa: is an address, not a file; download it first"),
        ("cut.fa.gz", "cut.fa.gz: gzip stream 1, which starts at byte 0"),
    ],
)
def test_an_input_that_cannot_be_read(
    words: str, name: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(words.replace("INPUT", name), capsys)
    assert code == 3
    # A sample without contigs is a result of assembly that predict takes.
    assert message in text or (name == "empty.fa" and words.startswith("predict"))
    assert "Traceback" not in text
    assert list((here / "out").iterdir()) == []


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="a machine without a GPU")
@pytest.mark.parametrize(
    "words",
    [
        "train empty --device cuda",
        "predict contigs.fa --model model --device cuda",
        "embed proteins.fa -o out/x.pt --device cuda:1",
        "benchmark --device cuda",
    ],
)
def test_a_gpu_that_is_not_there(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(words, capsys)
    assert code == 3
    assert "was asked for, but torch" in text
    assert "compute on the CPU with --device cpu" in text


@pytest.mark.parametrize(
    "words", ["predict contigs.fa --model model", "embed proteins.fa -o out/x.pt --protein-model model"]
)
def test_a_folder_that_is_no_model(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(f"{words} --device cpu", capsys)
    assert code == 3
    assert "  - model" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            "embed contigs.fa -o out/x.pt --device cpu",
            3,
            "2 of 2 records look like nucleotides, first 'a'; add --dna",
        ),
        ("embed twice.fa -o out/x.pt --device cpu", 3, "1 duplicate id"),
        ("embed stop.fa -o out/x.pt --device cpu", 3, "a has '*' at position 3"),
        (
            "embed proteins.fa -o out/x.csv",
            2,
            "out/x.csv: unknown suffix; allowed: a file that ends with .pt, .npz",
        ),
        ("embed proteins.fa -o out", 2, "--output is"),
        (
            "predict contigs.fa --model model --device cpu -o notes.txt",
            3,
            "notes.txt: is a file, not a folder; move it away, or name another folder",
        ),
        (
            "predict contigs.fa --model model --device tpu",
            2,
            "--device is tpu; allowed: auto, cuda, cuda:N or cpu",
        ),
        ("extract empty --precision int8", 2, "argument --precision: invalid choice: 'int8'"),
        ("extract empty --device cpu --precision fp16", 2, "precision fp16 was asked for on a CPU"),
        (
            "embed proteins.fa -o x.pt --gpus-per-worker inf",
            2,
            "--gpus-per-worker is inf; allowed: a number above 0",
        ),
        ("extract empty --workers 2", 2, "--workers is 2; allowed: only with --engine ray"),
        (
            "embed proteins.fa -o out/x.pt --protein-model ~nobody-here/model",
            3,
            "model '~nobody-here/model': there is no such folder",
        ),
        (
            "embed proteins.fa -o out/x.pt --layer -1,-1",
            2,
            "--layer is -1,-1; allowed: one or more, each once",
        ),
        ("train empty --learning-rate -1e-5", 2, "--learning-rate is -1e-05; allowed: more than 0"),
        (
            "predict contigs.fa --model model --min-length 4294967296",
            2,
            "argument --min-length: 4294967296; allowed: whole numbers up to 4294967295",
        ),
        (f"download empty --seed -{9 * 10**30}", 2, "--seed: -9000000000000000000…; allowed: whole numbers"),
        (f"download empty --count plant={9 * 10**30}", 2, "--count: 90000000000000000000…; allowed: whole"),
        ("evaluate model --lengths 300,4294967296", 2, "--lengths: 4294967296; allowed: whole numbers up to"),
        ("train empty --folds 1001", 2, "--folds is 1001; allowed: 3 (one tests, one validates) to 1000"),
        ("train empty --batch-size 1048577", 2, "--batch-size is 1048577; allowed: 2 (batch norm needs"),
        ("train empty --bootstrap 1000001", 2, "--bootstrap is 1000001; allowed: 1 to 1000000"),
        ("extract empty --audit -1", 2, "--audit is -1; allowed: 0 or more"),
        ("split empty --sequences-per-file 0", 2, "--sequences-per-file is 0; allowed: 1 or more"),
        ("status empty --watch 0", 2, "--watch is 0; allowed: more than 0 seconds"),
        ("report empty --points 60000", 2, "--points is 60000; allowed: 0 to 50000"),
        ("train empty --epochs 0", 2, "--epochs is 0; allowed: 1 or more"),
        ("train empty --validation 2", 2, "--validation is 2.0; allowed: more than 0 and less than 1"),
        ("train empty --split-by family", 2, "--split-by family needs a table: --families FILE.tsv"),
        ("train empty --families notes.txt", 2, "--families is for --split-by family, which is genome here"),
        ("dataset empty --length 0", 2, "length 0 is too short; a chunk needs at least 3 bases"),
        ("dataset empty --length 300", 3, "empty: no genomes found; it must hold pairs of X.genomic.fna.gz"),
        ("dataset empty", 2, "the following arguments are required: --length"),
        (
            "download empty --count moss=2",
            2,
            "group 'moss' does not exist; RefSeq's host groups are bacteria",
        ),
        ("download empty --count bacteria", 2, "argument --count: 'bacteria' is not GROUP=N"),
        (
            "export empty --to csv",
            2,
            "argument --to: invalid choice: 'csv' (choose from 'parquet', 'safetensors', 'npz')",
        ),
        (
            "inspect nosuch",
            3,
            "nosuch: no such file or folder; name a file of vectors or sequences, a data folder or a model",
        ),
        ("inspect binary.fa", 1, "the file must start with '>' or '@'"),
        ("fetch-models", 2, "the following arguments are required: FOLDER"),
        ("completion fish", 2, "argument SHELL: invalid choice: 'fish' (choose from 'bash', 'zsh', 'tcsh')"),
    ],
)
def test_other_slips(
    words: str, code: int, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, text = said(words, capsys)
    assert (found, message in text) == (code, True), text
    assert "Traceback" not in text
    assert "please report" not in text
    assert list((here / "out").iterdir()) == []


@pytest.mark.parametrize("threshold", ["2", "-0.5", "nan"])
def test_a_threshold_is_a_score(threshold: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = said(f"predict contigs.fa --model model --threshold={threshold}", capsys)
    assert code == 2
    assert f"--threshold is {float(threshold)}; allowed: 0 to 1" in error


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("train --split-by genus", "family"),
        ("train --features tape", "disk"),
        ("extract --host-selection genus", "seeded"),
    ],
)
def test_a_choice_that_is_not_known_is_reported_with_those_that_are(
    words: str, known: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = said(words, capsys)
    _, option, word = words.split()
    assert code == 2
    assert f"{option}: {word}; allowed: " in error
    assert known in error


@pytest.mark.parametrize("words", ["report ~/nosuch", "inspect ~/nosuch", "embed ~/nosuch.fa -o x.npz"])
def test_a_home_that_the_shell_left_is_the_home(
    words: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    code, error = said(words, capsys)
    assert code != 0
    assert f"{here / 'home' / 'nosuch'}" in error


@pytest.mark.parametrize(
    ("word", "path"), [("~/out", "home/out"), ("~nobody-here/x", "~nobody-here/x"), ("a~b", "a~b")]
)
def test_an_output_in_the_home(word: str, path: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    parser = commands_of(tree(["report"]))["report"]
    expected = here / path if path.startswith("home") else Path(path)
    assert parser.parse_args(["data", f"--output={word}"]).output == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "embed contigs.fa --dna -o x.pt --protein-model esm",
            "--protein-model is esm; allowed: only without --dna, which takes --dna-model",
        ),
        (
            "embed contigs.fa --dna -o x.pt --protein-revision v1",
            "--protein-revision is v1; allowed: only without",
        ),
        (
            "embed contigs.fa --dna -o x.pt --token-dropout off",
            "--token-dropout is off; allowed: only without --dna",
        ),
        (
            "embed proteins.fa -o x.pt --dna-model bert",
            "--dna-model is bert; allowed: only with --dna; proteins take --protein-model",
        ),
        ("embed proteins.fa -o x.pt --dna-revision v1", "--dna-revision is v1; allowed: only with --dna"),
        (
            "extract empty --dna-model bert",
            "--dna-model is bert; allowed: only with --with-dna, or in nucpro embed-dna",
        ),
        ("extract empty --dna-revision v1 --dry-run", "--dna-revision is v1; allowed: only with --with-dna"),
        ("extract empty --gpus-per-worker 0.5", "--gpus-per-worker is 0.5; allowed: only with --engine ray"),
        (
            "embed proteins.fa -o x.pt --cpus-per-worker 2",
            "--cpus-per-worker is 2.0; allowed: only with --engine ray",
        ),
        (
            "embed-dna empty --all --host-selection seeded",
            "--host-selection is seeded; allowed: only without --all",
        ),
        (
            "embed-dna empty --all --strict-sampling",
            "--strict-sampling is given; allowed: only without --all",
        ),
        (
            "predict contigs.fa --model model --plot-format svg",
            "--plot-format is svg; allowed: only with --plot",
        ),
        ("train empty --folds 5 --test 0.2", "--test is 0.2; allowed: only without --folds"),
        ("train empty --folds 5 --validation 0.2", "--validation is 0.2; allowed: only without --folds"),
        (
            "status empty --watch --sequences-per-file 20",
            "--sequences-per-file is 20; allowed: only without --watch",
        ),
        (
            "dataset empty --length 300 --engine ray --processes 2",
            "--processes is 2; allowed: only with --engine local",
        ),
        ("download empty --taxonomy --count plant=2", "--count is plant=2; allowed: only without --taxonomy"),
        ("download empty --taxonomy --seed 7", "--seed is 7; allowed: only without --taxonomy"),
        (
            "download empty --taxonomy-server http://x",
            "--taxonomy-server is http://x; allowed: only with --taxonomy",
        ),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    words: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = said(words, capsys)
    assert code == 2
    assert message in error
    assert not (here / "x.pt").exists()
    assert list((here / "empty").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["extract", "data", "--protein-model", ""], "--protein-model"),
        (["extract", "data", "--protein-model="], "--protein-model"),
        (["predict", "contigs.fa", "--model", ""], "--model"),
        (["embed", "proteins.fa", "-o", ""], "-o"),
        (["status", ""], "an argument"),
        (["embed", "proteins.fa", "", "-o", "out"], "an argument"),
    ],
)
def test_an_empty_value_is_no_default(words: list[str], name: str, here: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"error: {name} is empty; give a value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset", "--length=--"], "error: --length is --, which is not a value"),
        (["embed", "proteins.fa", "-o--"], "error: -o/--output is --, which is not a value"),
        (["predict", "contigs.fa", "--plot=--"], "error: --plot is --, which is not a value"),
        (
            ["status", "data", "--host-selection", "\x1b[2J"],
            r"error: argument --host-selection: \x1b[2J; allowed",
        ),
        (["status", "--\x1b[2J"], r"error: no option --\x1b[2J"),
    ],
)
def test_a_value_that_is_none_or_that_steers_the_terminal(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "\x1b" not in error


@pytest.mark.parametrize("words", ["status .", "status {}", "embed {}/proteins.fa -o x.npz", "extract -v"])
def test_a_working_directory_that_was_removed(
    words: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "gone").mkdir()
    monkeypatch.chdir(here / "gone")
    (here / "gone").rmdir()
    code, text = said(words.format(here), capsys)
    assert code == 3
    assert "the working directory was removed; change to another one (cd), then run again" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("embed proteins.fa --outfile o.npz", "no option --outfile"),
        ("embed --output o.npz --inptu proteins.fa", "no option --inptu\n"),
        ("doctor --model data", "no option --model; did you mean --models"),
        ("extract data --prot model", "no option --prot"),
        ("dataset data --lenght 300", "no option --lenght; did you mean --length"),
        ("export data --too npz", "no option --too; did you mean --to"),
        ("embed proteins.fa", "the following arguments are required: -o/--output"),
        (
            "evaluate model --lengths 150 --frames-per-genome 0",
            "--frames-per-genome is 0; allowed: 1 or more",
        ),
        ("evaluate model --lengths 5,150", "--lengths has 5; allowed: 60 or more"),
    ],
)
def test_an_unknown_option_is_told_before_what_is_missing(
    words: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(words, capsys)
    assert code == 2
    assert message in text
    assert words.startswith("evaluate") or "[options]\n" in text.splitlines(keepends=True)[0]
