"""What a prediction gives to other programs, and what it takes: files, pipes, nothing at all, and odd names."""

from __future__ import annotations

import gzip
import json
from html.parser import HTMLParser
from pathlib import Path

import pandas
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from predictions import Contig, arguments, contents, read_contigs, table, write_contigs

from nucpro.cli import main
from nucpro.formats import figures
from nucpro.prediction.options import OutputFolder
from nucpro.prediction.regions import place_of_frame
from nucpro.prediction.tables import read_tables

EVERYTHING = ("--viral-fasta", "--gff3", "--bed", "--html", "--multiqc")


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory,
    contigs: list[Contig],
    classifier: Path,
    model: Path,
    dna_model: Path,
) -> Path:
    """A prediction with everything that others read; the second contig has an odd name."""
    named = [Contig('"odd;=%,name', c.bases) if number == 1 else c for number, c in enumerate(contigs)]
    path = write_contigs(tmp_path_factory.mktemp("outputs") / "contigs.fasta", named)
    assert main(arguments(path, classifier, (model, dna_model), *EVERYTHING, "--threshold", "0.4")) == 0
    return path.with_name("contigs_prediction")


@pytest.fixture
def models(model: Path, dna_model: Path) -> tuple[Path, Path]:
    return model, dna_model


def test_frames_are_where_their_codons_are(result: Path) -> None:
    records = {c.name: c.bases for c in read_contigs(result.parent / "contigs.fasta")}
    strands = set()
    for row in read_tables(OutputFolder(result)):
        bases = records[row.values["record"]]
        for chunk in row.chunks:
            for frame in chunk.frames:
                start, end, strand = place_of_frame(chunk, frame)
                strands.add(strand)
                found = Seq(bases[start - 1 : end])
                codons = found if strand == "+" else found.reverse_complement()
                protein = codons.translate()
                assert len(protein) == frame.residues
                assert "*" not in protein
                assert chunk.start <= start <= end <= chunk.end
    assert strands == {"+", "-"}


def viral_of(result: Path) -> list[dict[str, str]]:
    read = pandas.read_csv(result / "sequences.tsv", sep="	", dtype=str)
    return read[read["prediction"] == "viral"].to_dict("records")


def test_viral_sequences_are_written_as_fasta(result: Path) -> None:
    records = {c.name: c.bases for c in read_contigs(result.parent / "contigs.fasta")}
    with (result / "viral.fasta").open() as text:
        found = list(SeqIO.parse(text, "fasta"))
    assert [record.id for record in found] == [row["record"] for row in viral_of(result)]
    assert 0 < len(found) < len(records)
    for record, row in zip(found, viral_of(result), strict=True):
        assert str(record.seq) == records[record.id]
        assert record.description == f"{record.id} viral score={row['score']}"


def test_gff3_and_bed_say_the_same_places(result: Path) -> None:
    lines = (result / "viral_frames.gff3").read_text().splitlines()
    assert lines[0] == "##gff-version 3"
    regions = [line.split() for line in lines if line.startswith("##sequence-region")]
    assert [region[2:] for region in regions] == [["1", row["bases"]] for row in viral_of(result)]
    features = [line.split("\t") for line in lines if not line.startswith("#")]
    beds = [line.split("\t") for line in (result / "viral_frames.bed").read_text().splitlines()]
    assert len(features) == len(beds) > 4
    assert all(len(feature) == 9 for feature in features)
    assert all(len(bed) == 6 for bed in beds)
    for feature, bed in zip(features, beds, strict=True):
        assert feature[1:3] == ["nucpro", "reading_frame"]
        assert int(feature[3]) == int(bed[1]) + 1
        assert feature[4] == bed[2]
        assert feature[6] == bed[5]
        assert float(feature[5]) >= 0.4
        assert int(bed[4]) == round(1000 * float(feature[5]))
    odd = [feature for feature in features if "odd" in feature[0]]
    assert not odd or odd[0][0] == "%22odd%3B%3D%25%2Cname"


def test_tables_survive_the_defaults_of_pandas(result: Path) -> None:
    for name in ("sequences.tsv", "chunks.tsv", "frames.tsv"):
        read = pandas.read_csv(result / name, sep="\t")
        assert '"odd;=%,name' in set(read["record"])
        assert len(read) == len((result / name).read_text().splitlines()) - 1


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name in ("src", "href") for name, _ in attrs)  # nothing is fetched
        if tag not in ("meta", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "circle":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_page_shows_counts_and_viral_sequences(result: Path) -> None:
    page = _Texts()
    page.feed((result / "summary.html").read_text().removeprefix("<!doctype html>"))
    assert page.open == []
    for row in viral_of(result):
        assert row["record"] in page.texts
        assert row["score"] in page.texts
    assert "contigs.fasta" in page.texts
    assert "0.4" in page.texts


def test_multiqc_finds_its_table(result: Path) -> None:
    content = json.loads((result / "nucpro_mqc.json").read_text())
    counts = json.loads((result / "prediction.json").read_text())["counts"]
    assert content["plot_type"] == "bargraph"
    assert content["data"] == {
        "contigs.fasta": {name: counts[name] for name in ("viral", "host", "undetermined")}
    }


def test_other_rules_give_other_verdicts_of_the_same_scores(
    tmp_path: Path,
    contigs: list[Contig],
    classifier: Path,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_contigs(tmp_path / "contigs.fasta", contigs)
    folder = tmp_path / "contigs_prediction"
    assert main(arguments(path, classifier, models)) == 0
    before = contents(folder)
    capsys.readouterr()
    assert main(arguments(path, classifier, models, "--threshold", "1", "--min-length", "100000")) == 0
    shown = capsys.readouterr().out
    assert "already holds the scores" in shown
    assert "Loading" not in shown
    assert {row["prediction"] for row in table(folder / "sequences.tsv")} == {"undetermined"}
    assert [row["score"] for row in table(folder / "frames.tsv")] == [
        line.split("\t")[-1] for line in before["frames.tsv"].decode().splitlines()[1:]
    ]
    assert main(arguments(path, classifier, models)) == 0
    assert contents(folder) == before


def test_a_contig_of_three_bases_is_never_viral(
    tmp_path: Path, classifier: Path, models: tuple[Path, Path]
) -> None:
    path = write_contigs(tmp_path / "short.fa", [Contig("three", "ATG"), Contig("half", "ATGGCT" * 25)])
    assert main(arguments(path, classifier, models, "--threshold", "0.000001")) == 0
    rows = table(tmp_path / "short_prediction" / "sequences.tsv")
    assert [row["prediction"] for row in rows] == ["undetermined", "viral"]
    assert rows[0]["score"]


@pytest.mark.parametrize("name", ["nothing.fa", "nothing.fa.gz"])
def test_an_empty_input_gives_tables_of_headers(
    name: str, tmp_path: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    assert main(arguments(path, classifier, models, *EVERYTHING, "--json", "--original-names", "--plot")) == 0
    shown = capsys.readouterr()
    assert f"Warning: {name}: holds no sequence" in shown.err
    assert "Loading" not in shown.out
    folder = tmp_path / "nothing_prediction"
    for made in ("sequences.tsv", "chunks.tsv", "frames.tsv"):
        assert len((folder / made).read_text().splitlines()) == 1
    assert (folder / "viral.fasta").read_bytes() == b""
    assert (folder / "viral_frames.gff3").read_text() == "##gff-version 3\n"
    assert json.loads((folder / "predictions.json").read_text())["sequences"] == []


def test_several_files_are_one_input(
    tmp_path: Path,
    contigs: list[Contig],
    classifier: Path,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = write_contigs(tmp_path / "whole.fasta", contigs)
    first = write_contigs(tmp_path / "a.fa.gz", contigs[:2])
    second = write_contigs(tmp_path / "b.fastq", contigs[2:])
    (tmp_path / "c.fa").write_bytes(b"")
    assert main(arguments(whole, classifier, models)) == 0
    more = [str(second), str(tmp_path / "c.fa"), "-o", str(tmp_path / "both")]
    command = arguments(first, classifier, models)
    assert main([*command[:2], *more, *command[2:]]) == 0
    for made in ("sequences.tsv", "chunks.tsv", "frames.tsv"):
        assert (tmp_path / "both" / made).read_bytes() == (tmp_path / "whole_prediction" / made).read_bytes()
    assert (
        json.loads((tmp_path / "both" / "prediction.json").read_text())["input"]["file"]
        == "a.fa.gz and 2 more"
    )
    capsys.readouterr()
    assert main([*command[:2], str(second), *command[2:]]) == 2
    assert "2 files are one input; name the output folder with --output" in capsys.readouterr().err
    assert main([*command[:2], str(first), "-o", str(tmp_path / "twice"), *command[2:]]) == 2
    assert "is named twice" in capsys.readouterr().err
    assert main([*command[:2], str(whole), "-o", str(tmp_path / "same"), *command[2:]]) == 3
    assert f"{first} and 1 more: 2 duplicate ids" in capsys.readouterr().err


def test_a_chunk_has_a_sensible_length(
    tmp_path: Path,
    contigs: list[Contig],
    classifier: Path,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_contigs(tmp_path / "contigs.fasta", contigs)
    assert main(arguments(path, classifier, models, "--length", "59")) == 2
    assert "--length is 59; allowed: 60 or more" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_pictures_for_print_are_the_same_each_time(form: str, tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.{form}"
        assert figures.draw(path, (3, 2), lambda figure: figure.subplots().plot([0, 1], label="x"))
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_names_of_pictures_hold_no_path() -> None:
    folder = OutputFolder(Path("out"))
    assert folder.plot("../../etc/x y", 3, "svg") == Path("out/plots/_.._etc_x_y.sequence_3.svg")
    assert folder.plot("é", 4).name == "_.sequence_4.png"
    assert len(folder.plot("x" * 300, 5).name) < 120
