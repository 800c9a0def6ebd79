"""``nucpro predict`` from contigs to tables, on the CPU with untrained models of small size."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from predictions import (
    Contig,
    arguments,
    card_of,
    contents,
    read_contigs,
    save_classifier,
    table,
    write_contigs,
)

import dna_stand_ins
import stand_ins
from nucpro.classifier.card import ModelCard
from nucpro.classifier.model import load
from nucpro.cli import main
from nucpro.embedding import encoder as encoders
from nucpro.folder.kinds import CARD_NAME
from nucpro.formats.fasta import Records
from nucpro.formats.records import CHECKSUM, write_record
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options
from nucpro.prediction import plot
from nucpro.prediction.contigs import frames_of, units_of
from nucpro.prediction.options import OutputFolder
from nucpro.prediction.plot import write_plots


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory,
    contigs: list[Contig],
    classifier: Path,
    model: Path,
    dna_model: Path,
) -> Path:
    """A prediction with everything that can be asked for."""
    path = write_contigs(tmp_path_factory.mktemp("whole") / "contigs.fasta", contigs)
    more = ("--json", "--original-names", "--plot", "2")
    assert main(arguments(path, classifier, (model, dna_model), *more)) == 0
    return path.with_name("contigs_prediction")


@pytest.fixture
def models(model: Path, dna_model: Path) -> tuple[Path, Path]:
    return model, dna_model


def test_scores_are_those_of_the_plain_way(
    result: Path, contigs: list[Contig], classifier: Path, model: Path, dna_model: Path
) -> None:
    """All frames at once through both encoders, joined, and through the classifier."""
    records = [(contig.name, contig.bases.encode()) for contig in contigs]
    (unit,) = units_of(records, 300, 1 << 20)
    frames = frames_of(unit)
    options = Options(protein_model=str(model), dna_model=str(dna_model), device="cpu")
    parts = ((SequenceType.DNA, frames.nucleotides), (SequenceType.PROTEIN, frames.proteins))
    vectors = [
        encoders.load(encoders.identify(options, sequence_type), options).embed(
            Records(Path("x"), frames.ids, letters)
        )
        for sequence_type, letters in parts
    ]
    trained, _ = load(classifier)
    with torch.inference_mode():
        logits = trained(torch.from_numpy(np.hstack([part.matrix for part in vectors])))
    expected = torch.softmax(logits, dim=1)[:, 1].tolist()
    rows = table(result / "frames.tsv")
    assert [f"{row['record']}_chunk_{row['chunk']}{row['frame']}" for row in rows] == frames.ids
    assert [int(row["residues"]) for row in rows] == [len(protein) for protein in frames.proteins]
    assert [float(row["score"]) for row in rows] == pytest.approx(expected, abs=2e-5)
    assert min(expected) < 0.4
    assert max(expected) > 0.6


def test_tables_follow_from_each_other(result: Path, contigs: list[Contig]) -> None:
    frames, chunks = table(result / "frames.tsv"), table(result / "chunks.tsv")
    for row in chunks:
        own = [f for f in frames if (f["record"], f["chunk"]) == (row["record"], row["chunk"])]
        best = max(own, key=lambda frame: abs(float(frame["score"]) - 0.5), default=None)
        assert int(row["frames"]) == len(own)
        assert (row["best_frame"], row["score"]) == ((best["frame"], best["score"]) if best else ("", ""))
    sequences = table(result / "sequences.tsv")
    assert [(row["record"], int(row["bases"])) for row in sequences] == [
        (c.name, len(c.bases)) for c in contigs
    ]
    for row in sequences:
        own = [chunk for chunk in chunks if chunk["record"] == row["record"]]
        scores = [float(chunk["score"]) for chunk in own if chunk["score"]]
        assert (int(row["chunks"]), int(row["scored_chunks"])) == (len(own), len(scores))
        assert float(row["score"]) == pytest.approx(sum(scores) / len(scores), abs=1e-6)
        assert row["prediction"] == ("viral" if float(row["score"]) >= 0.5 else "host")
        assert int(row["viral_chunks"]) == sum(score >= 0.5 for score in scores)
        assert own[0]["start"] == "1"
        assert own[-1]["end"] == row["bases"]


def test_the_record_says_what_made_the_tables(result: Path, card: ModelCard) -> None:
    record = json.loads((result / "prediction.json").read_bytes())
    sequences = table(result / "sequences.tsv")
    assert record["encoders"]["protein"]["made_by"] == card.encoders["protein"]
    assert record["length"] == 300
    assert record["counts"]["records"] == len(sequences) == record["input"]["records"]
    assert record["counts"]["viral"] == sum(row["prediction"] == "viral" for row in sequences)
    assert record["counts"]["frames"] == len(table(result / "frames.tsv"))
    assert not (result / "unfinished").exists()


def test_files_of_the_original(result: Path) -> None:
    frames = table(result / "frames.tsv")
    rows = table(result / "prediction_results.txt")
    assert list(rows[0]) == ["Sequence_ID", "Prediction", "score1", "score2"]
    assert [row["Sequence_ID"] for row in rows] == [
        f"{f['record']}_chunk_{f['chunk']}{f['frame']}" for f in frames
    ]
    assert [row["score2"] for row in rows] == [frame["score"] for frame in frames]
    for row in rows:
        assert float(row["score1"]) + float(row["score2"]) == pytest.approx(1, abs=1e-9)
        assert row["Prediction"] == ("virus" if float(row["score2"]) >= 0.5 else "others")
    with (result / "prediction_results_highestscore.csv").open(newline="") as file:
        highest = list(csv.DictReader(file, delimiter="\t"))
    # What the original does with its own first file: ids without their frames, highest scores compared.
    chunks = dict.fromkeys(row["Sequence_ID"][:-2] for row in rows)
    assert [row["Modified_ID"] for row in highest] == list(chunks)
    for row in highest:
        own = [r for r in rows if r["Sequence_ID"][:-2] == row["Modified_ID"]]
        for_virus, against = (max(float(r[name]) for r in own) for name in ("score2", "score1"))
        assert row["Is_Virus"] == str(for_virus >= against)


def test_the_document_holds_what_the_tables_hold(result: Path) -> None:
    document = json.loads((result / "predictions.json").read_bytes())
    record = json.loads((result / "prediction.json").read_bytes())
    # What the record says of itself and of other outputs is no part of the prediction.
    assert document["prediction"] == {k: v for k, v in record.items() if k not in {"made", CHECKSUM}}
    sequences, frames = table(result / "sequences.tsv"), table(result / "frames.tsv")
    assert [s["record"] for s in document["sequences"]] == [row["record"] for row in sequences]
    assert [s["score"] for s in document["sequences"]] == [float(row["score"]) for row in sequences]
    found = [f["score"] for s in document["sequences"] for c in s["chunks"] for f in c["frames"]]
    assert found == [float(frame["score"]) for frame in frames]


def test_the_longest_sequences_are_drawn(result: Path) -> None:
    pictures = sorted(path.name for path in (result / "plots").iterdir())
    # Lambda and phiX174 are cut at 3,000 bases; of equal ones the first are drawn.
    assert [name.partition(".sequence_")[2] for name in pictures] == ["1.png", "2.png"]
    first, second = (row["record"] for row in table(result / "sequences.tsv")[:2])
    assert {name.partition(".sequence_")[0] for name in pictures} == {first, second}
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in (result / "plots").iterdir())


def test_neighbours_are_averaged_where_a_picture_has_no_room(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(result, tmp_path / "copy")
    folder = OutputFolder(tmp_path / "copy")
    picture = folder.plot(table(folder.sequences)[0]["record"], 1)
    before = picture.read_bytes()
    assert write_plots(folder, 1) == [picture]
    assert picture.read_bytes() == before
    monkeypatch.setattr(plot, "_MOST_POINTS", 4)
    write_plots(folder, 1)
    assert picture.read_bytes() != before


@pytest.mark.parametrize("name", ["reads.fastq", "reads.fastq.gz", "contigs.fa.gz"])
def test_any_form_of_the_input_gives_the_same(
    name: str,
    result: Path,
    tmp_path: Path,
    contigs: list[Contig],
    classifier: Path,
    models: tuple[Path, Path],
) -> None:
    lower = [Contig(contig.name, contig.bases.lower()) for contig in contigs]
    path = write_contigs(tmp_path / name, lower)
    assert main(arguments(path, classifier, models)) == 0
    folder = tmp_path / f"{name.partition('.')[0]}_prediction"
    for made in ("sequences.tsv", "chunks.tsv", "frames.tsv"):
        assert (folder / made).read_bytes() == (result / made).read_bytes()


@pytest.mark.parametrize("per_unit", ["1", "7", "1000"])
def test_the_size_of_units_changes_rounding_only(
    per_unit: str, result: Path, fasta: Path, classifier: Path, models: tuple[Path, Path]
) -> None:
    assert main(arguments(fasta, classifier, models, "--chunks-per-unit", per_unit)) == 0
    expected = table(result / "frames.tsv")
    found = table(fasta.with_name("contigs_prediction") / "frames.tsv")
    scores = [[float(row.pop("score")) for row in rows] for rows in (found, expected)]
    assert found == expected
    assert scores[0] == pytest.approx(scores[1], abs=2e-5)


def test_a_second_run_has_nothing_to_do(
    fasta: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(fasta, classifier, models)) == 0
    folder = fasta.with_name("contigs_prediction")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    # What is asked for only now is made of the tables.
    assert main(arguments(fasta, classifier, models, "--original-names")) == 0
    shown = capsys.readouterr().out
    assert f"{folder} already holds this prediction" in shown
    assert "Loading" not in shown
    assert (folder / "prediction_results.txt").exists()
    unchanged = [path for path, time in before.items() if path.stat().st_mtime_ns == time]
    assert {path.name for path in unchanged} >= {"sequences.tsv", "chunks.tsv", "frames.tsv"}


def test_a_missing_table_is_made_again(fasta: Path, classifier: Path, models: tuple[Path, Path]) -> None:
    assert main(arguments(fasta, classifier, models)) == 0
    folder = fasta.with_name("contigs_prediction")
    expected = contents(folder)
    (folder / "frames.tsv").unlink()
    assert main(arguments(fasta, classifier, models)) == 0
    assert contents(folder) == expected


def test_an_edited_table_is_thrown_away_on_request_only(
    fasta: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(fasta, classifier, models)) == 0
    folder = fasta.with_name("contigs_prediction")
    expected = contents(folder)
    with (folder / "chunks.tsv").open("a") as file:
        file.write("more\n")
    # What is missing is no reason to throw away what somebody changed.
    (folder / "frames.tsv").unlink()
    edited = contents(folder)
    assert main(arguments(fasta, classifier, models)) == 3
    assert (
        f"{folder}: holds tables that were changed since they were written (chunks.tsv)"
        in capsys.readouterr().err
    )
    assert contents(folder) == edited
    assert main(arguments(fasta, classifier, models, "--replace")) == 0
    assert contents(folder) == expected


@pytest.mark.parametrize("more", [(), ("--replace",)])
def test_pictures_of_somebody_else_stay(
    more: tuple[str, ...], fasta: Path, classifier: Path, models: tuple[Path, Path]
) -> None:
    assert main(arguments(fasta, classifier, models, "--plot", "2")) == 0
    folder = fasta.with_name("contigs_prediction")
    own = {name: f"{name} is mine".encode() for name in ("plots/notes.txt", "plots/sequence_logo.png")}
    for name, content in own.items():
        (folder / name).write_bytes(content)
    # Without --replace it is a missing table that makes the run start over.
    again = [*more, "--length", "500"] if more else []
    (folder / "frames.tsv").unlink()
    assert main(arguments(fasta, classifier, models, *again)) == 0
    there = contents(folder)
    assert {name: content for name, content in there.items() if name.startswith("plots/")} == own


def test_a_folder_of_pictures_alone_goes_with_them(
    fasta: Path, classifier: Path, models: tuple[Path, Path]
) -> None:
    assert main(arguments(fasta, classifier, models, "--plot", "1")) == 0
    assert main(arguments(fasta, classifier, models, "--length", "500", "--replace")) == 0
    assert not (fasta.with_name("contigs_prediction") / "plots").exists()


def test_an_option_is_called_by_its_name(
    fasta: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(fasta, classifier, models, "--plot", "-1")) == 2
    assert "--plot is -1; allowed: 0 or more" in capsys.readouterr().err


def test_what_has_no_frame_is_undetermined_and_counted(
    tmp_path: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    stops = "TAACTAACTAAC" * 10
    contigs = [
        Contig("short", "AC"),
        Contig("empty", ""),
        Contig("stops", stops),
        Contig("gap", "N" * 400),
        Contig("protein", "ATGGCTGCTGCTAAAGCTGCT" * 8),
    ]
    path = write_contigs(tmp_path / "odd.fna", contigs)
    assert main(arguments(path, classifier, models, "--json", "--original-names", "--plot")) == 0
    shown, warnings = capsys.readouterr()
    folder = tmp_path / "odd_prediction"
    rows = {row["record"]: row for row in table(folder / "sequences.tsv")}
    assert list(rows) == [contig.name for contig in contigs]
    for name, chunks in (("short", "1"), ("empty", "0"), ("stops", "1"), ("gap", "2")):
        assert rows[name]["chunks"] == chunks
        assert (rows[name]["score"], rows[name]["prediction"]) == ("", "undetermined")
    assert rows["protein"]["prediction"] in ("viral", "host")
    assert "4 undetermined (too short, or no frame to score)" in shown
    assert "Warning: 12 frames were left out because most of their residues are unknown" in warnings
    highest = (folder / "prediction_results_highestscore.csv").read_text().splitlines()
    assert highest[0] == "Modified_ID\tIs_Virus"
    assert {line.partition("_chunk_")[0] for line in highest[1:]} == {"protein"}
    assert [path.name for path in (folder / "plots").iterdir()] == ["protein.sequence_5.png"]


def test_nothing_to_score_at_all(tmp_path: Path, classifier: Path, models: tuple[Path, Path]) -> None:
    path = write_contigs(tmp_path / "stops.fa", [Contig("stops", "TAACTAACTAAC" * 10)])
    assert main(arguments(path, classifier, models, "--plot")) == 0
    assert table(tmp_path / "stops_prediction" / "frames.tsv") == []
    assert [row["prediction"] for row in table(tmp_path / "stops_prediction" / "sequences.tsv")] == [
        "undetermined"
    ]


@pytest.mark.parametrize("sequence_type", ["dna", "protein"])
def test_a_classifier_of_one_sequence_type_needs_no_other_model(
    sequence_type: str,
    tmp_path: Path,
    fasta: Path,
    model: Path,
    dna_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = save_classifier(tmp_path / "one_side", card_of(model, dna_model, (sequence_type,)))
    named = {"dna": ["--dna-model", str(dna_model)], "protein": ["--protein-model", str(model)]}
    assert (
        main(["predict", str(fasta), "--model", str(folder), "--device", "cpu", *named[sequence_type]]) == 0
    )
    assert capsys.readouterr().out.count("Loading") == 1
    assert len(table(fasta.with_name("contigs_prediction") / "sequences.tsv")) == 6
    (other,) = named.keys() - {sequence_type}
    assert main(["predict", str(fasta), "--model", str(folder), "--device", "cpu", *named[other]]) == 2
    said = f"only for a classifier of such columns; {folder} reads {sequence_type} columns"
    assert f"{named[other][0]} is {named[other][1]}; allowed: {said}" in capsys.readouterr().err


class TestRefusals:
    """What is found before anything is touched."""

    def refused(self, capsys: pytest.CaptureFixture[str], *command: str) -> str:
        assert main([*command]) == 3
        return capsys.readouterr().err

    def test_a_pipe_is_named_as_it_was_given(
        self,
        tmp_path: Path,
        classifier: Path,
        model: Path,
        dna_model: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=(">a\nACL\n",))
        writer.start()
        given = arguments(pipe, classifier, (model, dna_model))
        shown = self.refused(capsys, *given, "-o", str(tmp_path / "out"))
        writer.join()
        assert f"- {pipe}: characters outside ACGTURYSWKMBDHVN: a has 'L' at position 3" in shown

    def test_all_problems_are_reported_at_once(
        self, tmp_path: Path, classifier: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = stand_ins.make_checkpoint(tmp_path / "other_esm", width=32, layers=1, heads=2)
        path = write_contigs(tmp_path / "x.fa", [Contig("a", "ACL"), Contig("a", "ACGT")])
        shown = self.refused(capsys, *arguments(path, classifier, (other, tmp_path / "nowhere")))
        for problem in (
            f"{path}: characters outside ACGTURYSWKMBDHVN: a has 'L' at position 3",
            f"{path}: 1 duplicate id: a",
            f"{classifier}: takes 16 protein columns, other_esm gives 32; give the encoder of its training "
            "data with --protein-model",
            "nowhere",
        ):
            assert problem in shown
        assert not (tmp_path / "x_prediction").exists()

    def test_another_encoder(
        self, tmp_path: Path, fasta: Path, classifier: Path, card: ModelCard, model: Path, dna_model: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        other = dna_stand_ins.make_dna_checkpoint(tmp_path / "other_dna", layers=2, feed_forward_width=64)
        (other / "tokenizer.json").write_bytes((dna_model / "tokenizer.json").read_bytes())
        shown = self.refused(capsys, *arguments(fasta, classifier, (model, other)))
        trained = card.encoders["dna"] or {}
        assert (
            f"{classifier}: was trained on DNA vectors of tiny_dna (weights {trained['weights_sha256'][:12]}…), "
            "fp32, and the encoder here is other_dna (weights " in shown
        )
        assert "fp32: layers = 1, not 2; give" in shown
        assert "give the encoder of its training data with --dna-model" in shown

    def test_other_token_dropout_cannot_slip_in(
        self, tmp_path: Path, fasta: Path, card: ModelCard, models: tuple[Path, Path]
    ) -> None:
        """The card decides, not the checkpoint's config."""
        made_by = {**(card.encoders["protein"] or {}), "token_dropout": False}
        off = replace(card, encoders={**card.encoders, "protein": made_by})
        folder = save_classifier(tmp_path / "off", off)
        assert main(arguments(fasta, folder, models)) == 0
        record = json.loads((fasta.with_name("contigs_prediction") / "prediction.json").read_bytes())
        assert record["encoders"]["protein"]["made_by"]["token_dropout"] is False

    def test_folders_of_models_must_be_named(
        self, fasta: Path, classifier: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = self.refused(capsys, "predict", str(fasta), "--model", str(classifier), "--device", "cpu")
        assert "the DNA vectors that it was trained on were made by tiny_dna (weights " in shown
        assert "give that model with --protein-model" in shown

    def test_a_pickled_model(
        self, tmp_path: Path, fasta: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        pickled = tmp_path / "300_model.pth"
        torch.save({"weights": torch.zeros(3)}, pickled)
        shown = self.refused(capsys, *arguments(fasta, pickled, models))
        assert f"{pickled}: a pickled model, which can run any program" in shown

    def test_a_card_without_a_length(
        self, tmp_path: Path, fasta: Path, card: ModelCard, models: tuple[Path, Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        folder = save_classifier(tmp_path / "unknown", replace(card, chunk_length=None))
        shown = self.refused(capsys, *arguments(fasta, folder, models))
        assert f"{folder}: has no chunk length in its card; give it with --length" in shown
        assert main(arguments(fasta, folder, models, "--length", "500")) == 0
        chunks = table(fasta.with_name("contigs_prediction") / "chunks.tsv")
        assert chunks[0]["end"] == "500"

    def test_another_input_in_the_same_folder(
        self, tmp_path: Path, fasta: Path, contigs: list[Contig], classifier: Path, models: tuple[Path, Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        output = ("-o", str(tmp_path / "out"))
        other = write_contigs(tmp_path / "other.fa", contigs[2:4])
        assert main(arguments(other, classifier, models, *output, "--json")) == 0
        before = contents(tmp_path / "out")
        shown = self.refused(capsys, *arguments(fasta, classifier, models, *output))
        assert "out: holds a prediction that is of another input (other.fa)" in shown
        assert "name another folder with --output, or replace it with --replace" in shown
        assert contents(tmp_path / "out") == before
        assert main(arguments(fasta, classifier, models, *output, "--replace")) == 0
        # What the other prediction left would contradict this one.
        assert not (tmp_path / "out" / "predictions.json").exists()
        assert len(table(tmp_path / "out" / "sequences.tsv")) == 6

    def test_another_classifier_in_the_same_folder(
        self, tmp_path: Path, fasta: Path, card: ModelCard, classifier: Path, models: tuple[Path, Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        assert main(arguments(fasta, classifier, models)) == 0
        other = save_classifier(tmp_path / "other", replace(card, hidden_width=8))
        shown = self.refused(capsys, *arguments(fasta, other, models))
        assert "holds a prediction that was made by another classifier" in shown
        shown = self.refused(capsys, *arguments(fasta, classifier, models, "--length", "500"))
        assert "holds a prediction that has chunks of 300 bases, not 500" in shown

    def test_files_that_nothing_is_recorded_about(
        self, fasta: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = fasta.with_name("contigs_prediction")
        folder.mkdir()
        (folder / "sequences.tsv").write_text("mine\n")
        shown = self.refused(capsys, *arguments(fasta, classifier, models))
        assert "holds files with the names of a prediction, but no record of one" in shown
        assert (folder / "sequences.tsv").read_text() == "mine\n"
        (folder / "sequences.tsv").unlink()
        (folder / "chunks.tsv").symlink_to("../.git/annex/objects/mine")
        shown = self.refused(capsys, *arguments(fasta, classifier, models))
        assert "holds files with the names of a prediction, but no record of one" in shown
        assert (folder / "chunks.tsv").is_symlink()

    def test_a_damaged_record(
        self, fasta: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments(fasta, classifier, models)) == 0
        folder = fasta.with_name("contigs_prediction")
        expected = contents(folder)
        (folder / "prediction.json").write_text("{")
        shown = self.refused(capsys, *arguments(fasta, classifier, models))
        assert "holds a prediction whose record is damaged" in shown
        assert main(arguments(fasta, classifier, models, "--replace")) == 0
        assert contents(folder) == expected

    def test_a_missing_input(
        self, tmp_path: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = self.refused(capsys, *arguments(tmp_path / "no.fa", classifier, models))
        assert f"{tmp_path / 'no.fa'}: cannot be read: No such file or directory; check the path" in shown

    def test_an_output_that_is_a_file_and_pictures_without_matplotlib(
        self, fasta: Path, classifier: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        shown = self.refused(capsys, *arguments(fasta, classifier, models, "-o", str(fasta), "--plot"))
        assert f"{fasta}: is a file, not a folder; move it away, or name another folder" in shown
        assert "--plot needs matplotlib, which is not installed: pip install 'nucpro[train]'" in shown

    def test_a_name_too_long_for_its_folder_points_to_the_output(
        self, fasta: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        long = fasta.rename(fasta.with_name(f"{'x' * 248}.fa"))
        shown = self.refused(capsys, *arguments(long, classifier, models))
        assert "its name has 259 bytes, a file system takes 255; name a folder with --output" in shown

    @pytest.mark.parametrize(
        ("option", "value", "least"),
        [("--length", "59", 60), ("--chunks-per-unit", "0", 1), ("--plot", "-1", 0)],
    )
    def test_numbers_out_of_range(
        self, option: str, value: str, least: int, fasta: Path, classifier: Path, models: tuple[Path, Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        assert main(arguments(fasta, classifier, models, option, value)) == 2
        assert f"is {value}; allowed: {least} or more" in capsys.readouterr().err


def test_unknown_origin_and_other_precision_are_said(
    tmp_path: Path,
    fasta: Path,
    card: ModelCard,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    half = {**(card.encoders["protein"] or {}), "precision": "fp16"}
    folder = save_classifier(tmp_path / "half", replace(card, encoders={"dna": None, "protein": half}))
    assert main(arguments(fasta, folder, models)) == 0
    shown = capsys.readouterr().err
    assert f"{folder} does not say which model computed the dna vectors it was trained on" in shown
    assert f"{folder} was trained on protein vectors in fp16, these are computed in fp32" in shown


def test_a_changed_card_is_another_classifier(
    fasta: Path,
    tmp_path: Path,
    card: ModelCard,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = save_classifier(tmp_path / "own", card)
    assert main(arguments(fasta, folder, models)) == 0
    content = json.loads((folder / CARD_NAME).read_bytes())
    del content[CHECKSUM]
    write_record(folder / CARD_NAME, {**content, "training": {"seed": 2}})
    assert main(arguments(fasta, folder, models)) == 3
    assert "was made by another classifier" in capsys.readouterr().err


def test_a_recorded_place_that_no_file_system_takes_is_nowhere(
    fasta: Path,
    tmp_path: Path,
    card: ModelCard,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = save_classifier(tmp_path / "own", replace(card, models={"dna": "x" * 1000, "protein": "x\0"}))
    assert main(arguments(fasta, folder, models)) == 0
    capsys.readouterr()
    assert main(["predict", str(fasta), "--model", str(folder), "-o", str(tmp_path / "out")]) == 3
    assert "give that model with --dna-model" in capsys.readouterr().err


def test_real_weights_on_real_genomes(
    real_data: Path, tmp_path: Path, dna_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real 8M protein weights beside an untrained DNA model: vectors differ, units do not matter."""
    protein_model = real_data / "esm2_8m"
    folder = save_classifier(tmp_path / "real", card_of(protein_model, dna_model))
    contigs = read_contigs(real_data / "refseq_mini" / "viral.1.1.genomic.fna.gz")[3:]
    path = write_contigs(tmp_path / "influenza.fna.gz", contigs)
    tables = []
    for per_unit in ("2", "100"):
        output = tmp_path / per_unit
        command = arguments(path, folder, (protein_model, dna_model), "-o", str(output))
        assert main([*command, "--chunks-per-unit", per_unit]) == 0
        tables.append(table(output / "frames.tsv"))
    assert [row["record"] for row in table(tmp_path / "100" / "sequences.tsv")] == [c.name for c in contigs]
    scores = [[float(row["score"]) for row in rows] for rows in tables]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert len(set(scores[0])) > len(scores[0]) / 2


def test_what_is_made_of_the_tables_replaces_nothing_of_somebody_else(
    fasta: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(fasta, classifier, models)) == 0
    folder = fasta.with_name("contigs_prediction")
    names = ("predictions.json", "prediction_results.txt")
    for name in names:
        (folder / name).write_text("mine")
    more = arguments(fasta, classifier, models, "--json", "--original-names")
    assert main(more) == 3
    shown = capsys.readouterr().err
    for name in names:
        assert f"{folder / name}: exists, and there is no record that this command wrote it" in shown
        assert (folder / name).read_text() == "mine"
    assert main([*more, "--replace"]) == 0
    made = contents(folder)
    assert main(more) == 0
    assert contents(folder) == made


def test_work_of_somebody_else_in_the_output_folder_is_refused(
    fasta: Path, classifier: Path, models: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    work = fasta.with_name("contigs_prediction") / "unfinished"
    work.mkdir(parents=True)
    (work / "thesis.tex").write_text("mine")
    for more in ([], ["--replace"]):
        assert main(arguments(fasta, classifier, models, *more)) == 3
        assert f"{work}: holds files without a record" in capsys.readouterr().err
    assert (work / "thesis.tex").read_text() == "mine"
    elsewhere = fasta.with_name("elsewhere")
    work.rename(elsewhere)
    work.symlink_to(elsewhere)
    assert main(arguments(fasta, classifier, models)) == 3
    assert f"{work}: is a link or a file" in capsys.readouterr().err
    assert contents(elsewhere) == {"thesis.tex": b"mine"}


@pytest.mark.parametrize(
    "content", [b"mine", b"", b"[1, 2]", b"\xff\xfe", b'{"sha256": 3}', b"[" * 100_000, b'{"lengths": 3}']
)
def test_a_damaged_card_is_named_in_one_line(
    content: bytes,
    tmp_path: Path,
    fasta: Path,
    classifier: Path,
    models: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(classifier, folder)
    (folder / "model.json").write_bytes(content)
    assert main(arguments(fasta, folder, models)) == 3
    shown = capsys.readouterr().err
    assert str(folder / "model.json") in shown
    assert "report it" not in shown
