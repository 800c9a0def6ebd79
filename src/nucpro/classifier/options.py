"""Options of training: one frozen record, validated once. They come from the command line or ``train.py``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nucpro.errors import UsageError
from nucpro.folder.paths import SEED
from nucpro.formats.sequences import SequenceType
from nucpro.options import ParsedOptions, require

__all__ = [
    "COLUMNS",
    "FEW_GROUPS",
    "LARGEST_BATCH",
    "METRICS",
    "SCORES",
    "Placement",
    "SplitBy",
    "TrainingOptions",
]

LARGEST_BATCH = 1 << 20
"""Most rows of a step: a buffer of this size is taken before training begins."""
_MOST_DRAWS, _MOST_FOLDS = 1_000_000, 1000

FEW_GROUPS = 10
"""With fewer test genomes per class than this, resampling does not generalise to other genomes."""

SCORES = (
    "accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "mcc",
    "auroc",
    "auprc",
    "calibration_error",
)
"""Names of the metrics to show, in their order; viral is the positive class."""

METRICS = ("loss", *SCORES)
"""All metrics of a training."""


COLUMNS = {
    "both": (SequenceType.DNA, SequenceType.PROTEIN),
    "dna": (SequenceType.DNA,),
    "protein": (SequenceType.PROTEIN,),
}
"""Sequence types that a classifier reads, by the names of the command line and of a comparison."""


class SplitBy(StrEnum):
    """What stays together when rows are divided into training, validation and test."""

    GENOME = "genome"
    TAXON = "taxon"
    FAMILY = "family"
    FILE = "file"
    ROW = "row"


class Placement(StrEnum):
    """Where all features are stored while a classifier is trained."""

    AUTO = "auto"
    DEVICE = "device"
    MEMORY = "memory"
    DISK = "disk"


_PLURALS = {
    "genome": "genomes",
    "taxon": "taxa",
    "file": "files",
    "row": "rows",
    "species": "species",
    "genus": "genera",
    "subfamily": "subfamilies",
    "family": "families",
    "order": "orders",
    "class": "classes",
    "phylum": "phyla",
}


@dataclass(frozen=True)
class TrainingOptions(ParsedOptions):
    """Options of ``nucpro train``; the defaults are the recipe of VirNucPro's ``train.py``.

    Parameters
    ----------
    data_dir : Path
        The data folder, with ``data_merge``.
    output : Path, optional
        Folder of the model; by default ``model`` in the data folder.
    split_by : SplitBy
        What stays together.
    families : Path, optional
        TSV of record and family, for :attr:`SplitBy.FAMILY`.
    rank : str, optional
        One of :data:`nucpro.genomes.taxonomy.RANKS`, for :attr:`SplitBy.TAXON`: what stays together is all that
        belongs to one taxon of this rank. Without it, what has the same taxon.
    taxonomy : Path, optional
        NCBI's dump, for `rank`; by default ``taxdump.tar.gz`` in the data folder.
    validation, test : float
        Parts of the rows that are kept from training; each between 0 and 1.
    sequence_types : tuple of SequenceType
        Columns to train on.
    seed : int
        Of the split, the first weights, the order of rows and dropout.
    batch_size : int
        Rows of a step.
    learning_rate : float, optional
        By default ``2e-4 * batch_size / 32``: the rule of linear scaling (Goyal et al., arXiv:1706.02677).
    momentum : float
        Of stochastic gradient descent.
    decay, decay_every : float and int
        The learning rate is multiplied by `decay` after every `decay_every` epochs.
    epochs : int
        Most epochs.
    patience : int
        Epochs without a lower validation loss after which training ends.
    device : str
        ``cuda``, ``cuda:N`` or ``cpu``; what is asked for is used or refused. ``auto`` is a GPU where there is one.
    placement : Placement
        Where the features are stored; ``auto`` is the device if they fit there, else memory, else disk.
    bootstrap : int
        Resamplings for confidence intervals.
    precision_at : float, optional
        Precision on validation that the threshold is chosen for; without it the threshold is 0.5.
    compare : bool
        Train on DNA, on protein and on both, and compare.
    folds : int, optional
        Train so many models, each tested on another part of the groups, instead of one.
    curves : bool
        Draw them.
    replace : bool
        Start over instead of resuming, also where other options made the model.

    Raises
    ------
    UsageError
        A value that is not allowed.
    """

    data_dir: Path = Path("data")
    output: Path | None = None
    split_by: SplitBy = SplitBy.GENOME
    families: Path | None = None
    rank: str | None = None
    taxonomy: Path | None = None
    validation: float = 0.1
    test: float = 0.1
    sequence_types: tuple[SequenceType, ...] = (SequenceType.DNA, SequenceType.PROTEIN)
    seed: int = SEED
    batch_size: int = 32
    learning_rate: float | None = None
    momentum: float = 0.9
    decay: float = 0.85
    decay_every: int = 10
    epochs: int = 200
    patience: int = 5
    device: str = "auto"
    placement: Placement = Placement.AUTO
    bootstrap: int = 1000
    precision_at: float | None = None
    compare: bool = False
    folds: int | None = None
    curves: bool = True
    replace: bool = False

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            value = getattr(self, name)
            require(0 < value < 1, f"--{name}", value, "more than 0 and less than 1")
        kept = self.validation + self.test
        require(kept < 1, "--validation and --test together", kept, "less than 1: the rest is trained on")
        size, most = self.batch_size, LARGEST_BATCH
        require(2 <= size <= most, "--batch-size", size, f"2 (batch norm needs two rows) to {most}")
        rate = self.base_rate
        require(0 < rate <= 1000, "--learning-rate", rate, "more than 0, at most 1000")
        for name in ("epochs", "patience", "decay_every"):
            value = getattr(self, name)
            require(value >= 1, f"--{name.replace('_', '-')}", value, "1 or more")
        require(1 <= self.bootstrap <= _MOST_DRAWS, "--bootstrap", self.bootstrap, f"1 to {_MOST_DRAWS}")
        require(0 <= self.seed < 1 << 32, "--seed", self.seed, "0 or more, below 2**32")
        wanted = self.precision_at
        require(wanted is None or 0 < wanted < 1, "--precision-at", wanted, "more than 0 and less than 1")
        require(
            self.folds is None or 3 <= self.folds <= _MOST_FOLDS,
            "--folds",
            self.folds,
            f"3 (one tests, one validates) to {_MOST_FOLDS}",
        )
        if self.folds is not None and self.compare:
            raise UsageError("--folds and --compare are two ways to train several models; give one of them")
        for name in ("validation", "test"):
            share, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            require(self.folds is None or share == default, f"--{name}", share, "only without --folds")
        self._require_groups()

    def _require_groups(self) -> None:
        if self.split_by is SplitBy.FAMILY and self.families is None:
            raise UsageError("--split-by family needs a table: --families FILE.tsv")
        if self.split_by is not SplitBy.FAMILY and self.families is not None:
            raise UsageError(f"--families is for --split-by family, which is {self.split_by} here")
        if self.split_by is not SplitBy.TAXON and self.rank is not None:
            raise UsageError(f"--rank is for --split-by taxon, which is {self.split_by} here")
        if self.rank is None and self.taxonomy is not None:
            raise UsageError("--taxonomy is for --rank, which is not given")

    @property
    def groups(self) -> str:
        """Plural of what stays together."""
        return _PLURALS[self.rank or self.split_by.value]

    @property
    def base_rate(self) -> float:
        """Learning rate of the first epochs."""
        return 2e-4 * self.batch_size / 32 if self.learning_rate is None else self.learning_rate

    def rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 0.

        Returns
        -------
        float
            The base rate, multiplied by ``decay`` every ``decay_every`` epochs.
        """
        return float(self.base_rate * self.decay ** (epoch // self.decay_every))

    @property
    def model_folder(self) -> Path:
        """Where the model goes."""
        return self.output or self.data_dir / "model"
