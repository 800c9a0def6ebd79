"""Options of a prediction: one frozen record, validated once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nucpro.errors import UsageError
from nucpro.formats.opening import STANDARD_INPUT, is_pipe
from nucpro.options import AUTO_DEVICE, ModelOptions, require

__all__ = ["DEFAULT_PLOTS", "OutputFolder", "PredictionOptions", "unit_number"]

DEFAULT_PLOTS = 10
"""Pictures that are drawn where their number is not given."""

_PACKED = (".gz", ".bgz", ".bz2", ".xz")
_FORMATS = (".fasta", ".fa", ".fna", ".ffn", ".fas", ".fastq", ".fq")


@dataclass(frozen=True)
class PredictionOptions(ModelOptions):
    """Options of ``nucpro predict``, with those of :class:`nucpro.options.ModelOptions`.

    Models are by default those that the classifier names, and ``auto`` is the precision of the training data on a GPU;
    each worker of a cluster has all encoders.

    Parameters
    ----------
    input : Path
        FASTA or FASTQ file, plain or packed with gzip, bzip2 or xz, or a pipe.
    model : Path
        Folder that ``nucpro train`` wrote; by default that of the data folder ``data``.
    output : Path, optional
        Folder for the result; by default beside the input, with its name and ``_prediction``.
    length : int, optional
        Bases of a full chunk; by default that of the classifier's training data.
    chunks_per_unit : int, optional
        Chunks that are scored and kept at a time; the default depends on the class of device only.
    json : bool
        Also write everything as one JSON document.
    original_names : bool
        Also write the two files that VirNucPro writes, by its names.
    plots : int
        Draw so many of the longest sequences.
    replace : bool
        Throw away what another prediction left in the output folder.

    Raises
    ------
    UsageError
        A value that is not allowed.
    """

    input: Path
    model: Path = Path("data/model")
    output: Path | None = None
    length: int | None = None
    device: str = field(default=AUTO_DEVICE, kw_only=True)
    chunks_per_unit: int | None = None
    json: bool = False
    original_names: bool = False
    plots: int = 0
    replace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output is None and (self.input == STANDARD_INPUT or is_pipe(self.input)):
            raise UsageError(
                f"{self.input} is a pipe, which gives the result no name; name its folder with --output"
            )
        lowest = (
            ("--length", self.length, 3),
            ("--chunks-per-unit", self.chunks_per_unit, 1),
            ("--plot", self.plots, 0),
        )
        for option, value, least in lowest:
            require(value is None or value >= least, option, value, f"{least} or more")

    @property
    def folder(self) -> Path:
        """Folder for the result."""
        if self.output is not None:
            return self.output
        name = self.input.name
        name = name.removesuffix(next((suffix for suffix in _PACKED if name.endswith(suffix)), ""))
        suffix = next((suffix for suffix in _FORMATS if name.endswith(suffix)), "")
        return self.input.with_name(f"{name.removesuffix(suffix) or name}_prediction")


_UNIT = re.compile(r"unit_([1-9][0-9]*)\.json")
_PICTURE = re.compile(r"sequence_[1-9][0-9]*\.png")


def unit_number(name: str) -> int | None:
    """K of a file called ``unit_K.json``; None for any other name."""
    match = _UNIT.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class OutputFolder:
    """The folder of one prediction.

    Parameters
    ----------
    root : Path
        As the user named it.
    """

    root: Path

    @property
    def sequences(self) -> Path:
        """One line a record."""
        return self.root / "sequences.tsv"

    @property
    def chunks(self) -> Path:
        """One line a chunk."""
        return self.root / "chunks.tsv"

    @property
    def frames(self) -> Path:
        """One line a frame that was scored."""
        return self.root / "frames.tsv"

    @property
    def tables(self) -> tuple[Path, Path, Path]:
        """The three tables, in the order in which they are written."""
        return self.sequences, self.chunks, self.frames

    @property
    def record(self) -> Path:
        """What made the tables."""
        return self.root / "prediction.json"

    @property
    def document(self) -> Path:
        """Everything in one JSON document."""
        return self.root / "predictions.json"

    @property
    def original_frames(self) -> Path:
        """Scores of frames under the name that VirNucPro gives them."""
        return self.root / "prediction_results.txt"

    @property
    def original_chunks(self) -> Path:
        """Verdicts on chunks under the name that VirNucPro gives them."""
        return self.root / "prediction_results_highestscore.csv"

    @property
    def plots(self) -> Path:
        """Folder of the pictures."""
        return self.root / "plots"

    def plot(self, number: int) -> Path:
        """Picture of the record with this number in the input, counted from 1."""
        return self.plots / f"sequence_{number}.png"

    @property
    def lock(self) -> Path:
        """Held by the run that writes here."""
        return self.root / ".prediction.lock"

    @property
    def work(self) -> Path:
        """Folder of what is done of an unfinished run."""
        return self.root / "unfinished"

    @property
    def work_record(self) -> Path:
        """What makes the units of the work folder."""
        return self.work / "run.json"

    def unit(self, number: int) -> Path:
        """Scores of a unit."""
        return self.work / f"unit_{number}.json"

    def pictures(self) -> list[Path]:
        """Pictures that are there; those of somebody else are not among them."""
        return [path for path in sorted(self.plots.glob("*.png")) if _PICTURE.fullmatch(path.name)]
