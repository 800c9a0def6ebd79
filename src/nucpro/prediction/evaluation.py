"""Evaluation of classifiers: on test genomes cut to other lengths, and compared on the same rows.

A model's card records the split of its data, so the test part can be reconstructed from the data folder that
it was trained on; if that is not possible, it is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nucpro.classifier.card import TRAIN_AGAIN, ModelCard
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
from nucpro.prediction.models import Models, digest_of_card, find_models
from nucpro.prediction.options import SHORTEST_CHUNK, PredictionOptions
from nucpro.prediction.verdict import Scorer
from nucpro.progress import Meter, Show, silent

__all__ = ["Evaluated", "ModelData", "compare_models", "evaluate_lengths"]

logger = logging.getLogger(__name__)

_DRAWS = 1000
_SPLIT = ("by", "seed", "fractions", "test_rows_sha256")
"""Entries of a card's split without which its test part is not found again."""
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
    if material.features.digest != cards[0].data.get("digest"):
        raise DataError(
            f"{material.survey.folder.root}: its merged files are not those that {models[0]} was trained on, such as "
            "vectors of another encoder; name the data folder of its training with --trained-on, or train again"
        )
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
    """Load models; report all that cannot be loaded, or that record no split, at once."""
    loaded, problems = [], []
    for path in models:
        try:
            classifier, card = load(path)
        except ModelError as error:
            problems.append(str(error))
            continue
        loaded.append((classifier, card))
        values = {
            "batch_size": card.training.get("batch_size"),
            **{name: card.split.get(name) for name in _SPLIT},
        }
        if missing := [name for name, value in values.items() if value is None]:
            problems.append(
                f"{path / CARD_NAME}: does not record {', '.join(missing)}, so its test part cannot be found again; "
                f"{TRAIN_AGAIN}"
            )
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
        data = replace(data, folder=data.folder_of(model))
        models, problems = find_models(settled(options))
        if models is None:
            raise PreflightError(problems)
        samples = [_Sample(length, models.card.split["seed"]) for length in lengths]
        _score(model, samples, models, data, per_genome, show)
        found = [sample.measured(models.card) for sample in samples]
        if digest_of_card(model) != models.card_sha256:
            raise DataError(f"{model}: was replaced during the evaluation; run again")
        table = {str(one.length): _plain(one) for one in found}
        save(model, models.classifier, replace(models.card, lengths={**models.card.lengths, **table}))
    logger.info("Added to %s", model / CARD_NAME)
    return found


def _score(
    model: Path, samples: Sequence[_Sample], models: Models, data: ModelData, per_genome: int, show: Show
) -> None:
    """Score frames of the test genomes at every length; each genome is read once."""
    divided = _test_part(model, models.card, data, models.options.device, show)
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
    meter = Meter(show, "Evaluating", len(wanted), "genomes")
    for pair in pairs:
        label = int(pair.source.category == VIRAL)
        for genome in _genomes(pair, wanted):
            for sample in samples:
                if frames := sample.drawn(genome, per_genome):
                    sample.add(_scores(scorer, frames), label)
            meter.advance(1)


def _plain(found: Evaluated) -> dict[str, object]:
    intervals = {name: ends and list(ends) for name, ends in found.measured.intervals.items()}
    values = dict(found.measured.values)
    return {"frames": found.frames, "genomes": found.genomes, "test": values, "test_intervals": intervals}


class _Genome(NamedTuple):
    """A test genome with its proteins, by genetic code, as ``nucpro dataset`` finds frames in them."""

    name: str
    bases: str
    proteins: dict[int, bytes]
    code: CodeChoice


def _genomes(pair: GenomePair, wanted: set[str]) -> Iterator[_Genome]:
    """Yield the test genomes of a pair that have proteins."""
    proteins = {
        found.record: {code: "\n".join(texts).encode() for code, texts in found.proteins.items()}
        for found in read_annotations(pair.genbank)
        if found.record in wanted
    }
    manifest = read_manifest(pair.manifest)
    code: CodeChoice = "auto" if manifest is not None and manifest.genetic_code == "auto" else "standard"
    for name, sequence in stream(pair.fasta, longest=None):
        if proteins.get(name):
            yield _Genome(name, sequence.decode("ascii"), proteins[name], code)


class _Sample:
    """Scores of frames of test genomes, cut into chunks of one length."""

    def __init__(self, length: int, seed: int) -> None:
        self._length = length
        self._generator = np.random.default_rng([seed, length])
        self._scores: list[float] = []
        self._labels: list[int] = []
        self._genomes: list[int] = []
        self._count = 0

    def drawn(self, genome: _Genome, most: int) -> list[FrameRecord]:
        """Draw frames of a genome that occur in its proteins, in their order."""
        kept = identify(genome.name, genome.bases, genome.proteins, self._length, genome.code).kept
        frames = list(frame_records(genome.name, genome.bases, self._length, kept))
        drawn = self._generator.choice(len(frames), min(len(frames), most), replace=False) if frames else ()
        return [frames[place] for place in sorted(drawn)]

    def add(self, scores: list[float], label: int) -> None:
        """Add the scores of a genome."""
        self._scores += scores
        self._labels += [label] * len(scores)
        self._genomes += [self._count] * len(scores)
        self._count += 1

    def measured(self, card: ModelCard) -> Evaluated:
        """Metrics of all scores.

        Raises
        ------
        DataError
            They are of one class.
        """
        if len(set(self._labels)) < 2:
            raise DataError(
                f"chunks of {self._length} bases of the test genomes give frames of "
                f"{'one' if self._labels else 'no'} class; take another length, or a model with more test genomes"
            )
        scored = _scored(np.array(self._labels), np.array(self._scores), card)
        measured = resample(scored, np.array(self._genomes), _DRAWS, card.split["seed"]).measured
        return Evaluated(self._length, len(self._scores), self._count, measured)


def _scored(labels: NDArray[np.int64], scores: NDArray[np.float64], card: ModelCard) -> Scored:
    bounded = np.clip(scores, 1e-9, 1 - 1e-9)
    return Scored(labels, np.log(bounded) - np.log1p(-bounded), card.calibration["threshold"])


def _scores(scorer: Scorer, frames: Sequence[FrameRecord]) -> list[float]:
    scores: list[float] = []
    for start in range(0, len(frames), _FRAMES_AT_A_TIME):
        some = frames[start : start + _FRAMES_AT_A_TIME]
        nucleotides, proteins = (
            [getattr(f, kind).encode() for f in some] for kind in ("nucleotides", "protein")
        )
        scores += scorer.scores_of([frame.name for frame in some], nucleotides, proteins)[0]
    return scores
