"""Evaluation of classifiers: on test genomes cut to other lengths, and compared on the same rows.

A model's card records the split of its data, so the test part can be reconstructed from the data folder that
it was trained on; if that is not possible, it is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.classifier.card import ModelCard
from nucpro.classifier.fitting import feed_of, viral_margins
from nucpro.classifier.material import Divided, divide, read_material
from nucpro.classifier.metrics import Comparison, Measured, Scored, compare, resample
from nucpro.classifier.model import Classifier, columns_of, load, save
from nucpro.classifier.options import SplitBy, TrainingOptions
from nucpro.classifier.sources import survey
from nucpro.classifier.training import working_folders
from nucpro.embedding.device import choose_device, settled
from nucpro.embedding.encoder import load as load_encoder
from nucpro.errors import DataError, ModelError, PreflightError, UsageError
from nucpro.folder.kinds import CARD_NAME
from nucpro.folder.paths import VIRAL, DataFolder
from nucpro.formats.fasta import stream
from nucpro.genomes.genbank import read_annotations
from nucpro.genomes.identification import FrameRecord, frame_records, identify
from nucpro.genomes.options import CodeChoice
from nucpro.genomes.paths import GenomePair, find_genomes
from nucpro.genomes.reports import read_manifest
from nucpro.options import require
from nucpro.prediction.models import find_models
from nucpro.prediction.options import SHORTEST_CHUNK, PredictionOptions
from nucpro.prediction.verdict import Scorer
from nucpro.progress import Meter, Show, silent

__all__ = ["Evaluated", "ModelData", "compare_models", "evaluate_lengths"]

logger = logging.getLogger(__name__)

_DRAWS = 1000
_FRAMES_AT_A_TIME = 2048


@dataclass(frozen=True)
class ModelData:
    """Data of models that their cards do not contain.

    Parameters
    ----------
    folder : Path, optional
        The data folder; by default the nearest one above the model.
    families : Path, optional
        The table of families, of a split by family.
    taxonomy : Path, optional
        NCBI's taxonomy, of a split by rank; by default that of the data folder.
    """

    folder: Path | None = None
    families: Path | None = None
    taxonomy: Path | None = None

    def folder_of(self, model: Path) -> Path:
        """Data folder of a model.

        Raises
        ------
        PreflightError
            None is given, and no folder above the model has merged files.
        """
        above = (folder for folder in model.absolute().parents if DataFolder(folder).merge_root.is_dir())
        found = self.folder or next(above, None)
        if found is None:
            raise PreflightError(
                [f"{model}: is in no data folder; name that of its training with --trained-on DATA"]
            )
        return found


@dataclass(frozen=True)
class Evaluated:
    """A model at one length.

    Parameters
    ----------
    length : int
        Bases of a full chunk.
    frames, genomes : int
        What was measured.
    measured : Measured
        Metrics with their intervals.
    """

    length: int
    frames: int
    genomes: int
    measured: Measured


def compare_models(
    models: Sequence[Path], data: ModelData, device: str, show: Show = silent
) -> tuple[Comparison, str]:
    """Measure models on the test rows that they share.

    Parameters
    ----------
    models : sequence of Path
        Model folders; their names are those of the comparison.
    data : ModelData
        What they were trained on.
    device : str
        Where they are computed.
    show : callable, optional
        Called with the progress.

    Returns
    -------
    comparison : Comparison
        Metrics and differences.
    drawn : str
        What was drawn for intervals.

    Raises
    ------
    UsageError
        There are not two different models, or they have other test rows.
    PreflightError
        A model cannot be read, or the data folder is not found.
    DataError
        A file cannot be read.
    """
    if len(models) < 2:
        raise UsageError(f"{models[0]}: one model is given, and two or more are compared; name another one")
    twice = [path for number, path in enumerate(models) if path in models[:number]]
    if twice:
        raise UsageError(f"{twice[0]} is named twice; name different models")
    loaded = dict(zip(map(str, models), _loaded(models), strict=True))
    cards = [card for _, card in loaded.values()]
    tested = {(card.data.get("digest"), card.split.get("test_rows_sha256")) for card in cards}
    if len(tested) > 1:
        raise UsageError(
            f"{', '.join(loaded)}: were tested on other rows; models can be compared that were trained on the same "
            "data with the same split (--split-by, --rank, --validation, --test, --seed)"
        )
    divided = _test_part(models[0], cards[0], data, device, show)
    material, rows = divided.material, divided.test_rows
    labels = material.features.labels.numpy()[rows]
    found = {}
    for name, (classifier, card) in loaded.items():
        matrix = material.features.matrix[:, columns_of(card.sides, card.widths)]
        feed = feed_of(matrix, material.features.labels, material.device, card.training["batch_size"])
        margins = viral_margins(classifier.to(material.device), feed, torch.from_numpy(rows)).numpy()
        calibration = card.calibration
        scored = Scored(labels, margins).calibrated(calibration["temperature"], calibration["threshold"])
        found[name] = resample(scored, divided.test_groups, _DRAWS, card.split["seed"])
    return compare(found), divided.drawn


def _loaded(models: Sequence[Path]) -> list[tuple[Classifier, ModelCard]]:
    """Load models; report all that cannot be loaded at once."""
    loaded, problems = [], []
    for path in models:
        try:
            loaded.append(load(path))
        except ModelError as error:
            problems.append(str(error))
    if problems:
        raise PreflightError(problems)
    return loaded


def _test_part(model: Path, card: ModelCard, data: ModelData, device: str, show: Show) -> Divided:
    """Divide the rows of a data folder as those that a model was trained on were divided."""
    folder = data.folder_of(model)
    fold, folds = card.split.get("fold") or (None, None)
    fractions = card.split["fractions"]
    by, rank = SplitBy(card.split["by"]), card.split.get("rank")
    made = f"{model} was trained with --split-by {by}"
    families, taxonomy = data.families, data.taxonomy
    require(
        families is None or by is SplitBy.FAMILY,
        "--families",
        families,
        f"only with --split-by family; {made}",
    )
    require(taxonomy is None or bool(rank), "--taxonomy", taxonomy, f"only with --rank; {made} and no --rank")
    options = settled(
        TrainingOptions(
            folder,
            output=model,
            split_by=by,
            rank=rank,
            families=families,
            taxonomy=taxonomy,
            **({} if folds else fractions),
            seed=card.split["seed"],
            folds=folds,
            device=device,
        )
    )
    material = read_material(survey(folder), options, choose_device(options.device), model, show)
    divided = divide(material, options, None if fold is None else fold - 1)
    if divided.split.summary["test_rows_sha256"] != card.split.get("test_rows_sha256"):
        raise DataError(
            f"{folder}: its rows divide into another test part than that of {model}: files were added, removed or "
            "changed since it was trained, or another version made the split; train again"
        )
    return divided


def evaluate_lengths(
    model: Path,
    lengths: Sequence[int],
    data: ModelData,
    options: PredictionOptions,
    per_genome: int,
    show: Show = silent,
) -> list[Evaluated]:
    """Cut the test genomes of a model to chunks of other lengths, and add what comes out to its card.

    Parameters
    ----------
    model : Path
        Its folder.
    lengths : sequence of int
        Bases of full chunks.
    data : ModelData
        What it was trained on, with the genomes (see :mod:`nucpro.genomes`).
    options : PredictionOptions
        Encoders and device.
    per_genome : int
        Frames of a genome at most, drawn by the seed of its split.
    show : callable, optional
        Called with the progress, in genomes.

    Returns
    -------
    list of Evaluated
        Metrics at each length.

    Raises
    ------
    UsageError
        A length is not allowed.
    PreflightError
        Encoders or genomes are missing, or another run writes to the model's folder.
    """
    odd = [length for length in lengths if length < SHORTEST_CHUNK]
    if odd or not lengths:
        raise UsageError(
            f"--lengths has {', '.join(map(str, odd)) or 'no number'}; allowed: {SHORTEST_CHUNK} or more, as in "
            "--lengths 150,300,500"
        )
    if per_genome < 1:
        raise UsageError(f"--frames-per-genome is {per_genome}; allowed: 1 or more")
    lengths = list(dict.fromkeys(lengths))
    _loaded([model])  # what is no model gets no lock file either
    with working_folders([model]):
        found = _at_lengths(model, lengths, data, settled(options), per_genome, show)
        classifier, card = load(model)
        table = {str(one.length): _plain(one) for one in found}
        save(model, classifier, replace(card, lengths={**card.lengths, **table}))
    logger.info("Added to %s", model / CARD_NAME)
    return found


def _at_lengths(
    model: Path,
    lengths: Sequence[int],
    data: ModelData,
    options: PredictionOptions,
    per_genome: int,
    show: Show,
) -> list[Evaluated]:
    data = replace(data, folder=data.folder_of(model))
    models, problems = find_models(options)
    if models is None:
        raise PreflightError(problems)
    divided = _test_part(model, models.card, data, options.device, show)
    folder, genomes = divided.material.survey.folder.root, divided.material.genomes
    if genomes is None:
        raise PreflightError([f"{folder}: ids do not contain their genomes, so these cannot be cut again"])
    wanted = {genomes.names[code] for code in np.unique(genomes.codes[divided.test_rows])}
    pairs = [pair for pair in find_genomes(folder).pairs if pair.source.category is not None]
    if not pairs:
        raise PreflightError(
            [f"{folder}: holds no genomes (X.genomic.fna.gz and its GenBank file) to cut again"]
        )
    scorer = models.load_scorer(folder, load_encoder)
    return [_at_length(length, pairs, wanted, models.card, scorer, per_genome, show) for length in lengths]


def _plain(found: Evaluated) -> dict[str, object]:
    intervals = {name: ends and list(ends) for name, ends in found.measured.intervals.items()}
    values = dict(found.measured.values)
    return {"frames": found.frames, "genomes": found.genomes, "test": values, "test_intervals": intervals}


def _at_length(
    length: int,
    pairs: Sequence[GenomePair],
    wanted: set[str],
    card: ModelCard,
    scorer: Scorer,
    per_genome: int,
    show: Show,
) -> Evaluated:
    meter = Meter(show, f"Chunks of {length} bases", len(wanted), "genomes")
    scores: list[float] = []
    labels: list[int] = []
    genomes: list[int] = []
    generator = np.random.default_rng([card.split["seed"], length])
    for pair in pairs:
        label = int(pair.source.category == VIRAL)
        for number, frames in enumerate(_frames(pair, wanted, length), len(set(genomes))):
            meter.advance(1)
            count = min(len(frames), per_genome)
            drawn = sorted(generator.choice(len(frames), count, replace=False))
            scores += _scores(scorer, [frames[place] for place in drawn])
            labels += [label] * count
            genomes += [number] * count
    if len(set(labels)) < 2:
        raise DataError(
            f"chunks of {length} bases of the test genomes give frames of {'no' if not labels else 'one'} class; "
            "take another length, or a model with more test genomes"
        )
    scored = _scored(np.array(labels), np.array(scores), card)
    measured = resample(scored, np.array(genomes), _DRAWS, card.split["seed"]).measured
    return Evaluated(length, len(scores), len(set(genomes)), measured)


def _scored(labels: NDArray[np.int64], scores: NDArray[np.float64], card: ModelCard) -> Scored:
    bounded = np.clip(scores, 1e-9, 1 - 1e-9)
    return Scored(labels, np.log(bounded) - np.log1p(-bounded), card.calibration["threshold"])


def _frames(pair: GenomePair, wanted: set[str], length: int) -> Iterator[list[FrameRecord]]:
    """Yield the frames of each test genome of a pair that occur in its proteins, as ``nucpro dataset`` finds them."""
    proteins: Mapping[str, dict[int, bytes]] = {
        found.record: {code: "\n".join(texts).encode() for code, texts in found.proteins.items()}
        for found in read_annotations(pair.genbank)
        if found.record in wanted
    }
    manifest = read_manifest(pair.manifest)
    code: CodeChoice = "auto" if manifest is not None and manifest.genetic_code == "auto" else "standard"
    for name, sequence in stream(pair.fasta, longest=None):
        if proteins.get(name):
            bases = sequence.decode("ascii")
            kept = identify(name, bases, proteins[name], length, code).kept
            if frames := list(frame_records(name, bases, length, kept)):
                yield frames


def _scores(scorer: Scorer, frames: Sequence[FrameRecord]) -> list[float]:
    scores: list[float] = []
    for start in range(0, len(frames), _FRAMES_AT_A_TIME):
        some = frames[start : start + _FRAMES_AT_A_TIME]
        nucleotides, proteins = (
            [getattr(f, kind).encode() for f in some] for kind in ("nucleotides", "protein")
        )
        scores += scorer.scores_of([frame.name for frame in some], nucleotides, proteins)[0]
    return scores
