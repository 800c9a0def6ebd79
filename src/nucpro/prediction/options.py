"""Options of a prediction: one frozen record, validated once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nucpro.errors import UsageError
from nucpro.folder.paths import below
from nucpro.formats.fasta import bare_name
from nucpro.formats.opening import STANDARD_INPUT, is_pipe
from nucpro.options import AUTO_DEVICE, ModelOptions, require

__all__ = [
    "DEFAULT_PLOTS",
    "PLOT_FORMATS",
    "SHORTEST_CHUNK",
    "OutputFolder",
    "PredictionOptions",
    "unit_number",
]

DEFAULT_PLOTS = 10
"""Pictures that are drawn where their number is not given."""
PLOT_FORMATS = ("png", "svg", "pdf")
"""Formats of pictures."""
SHORTEST_CHUNK = 60
"""Bases of the shortest full chunk: frames of fewer than 20 residues occur everywhere by chance."""


@dataclass(frozen=True)
class PredictionOptions(ModelOptions):
    """Options of ``nucpro predict``, with those of :class:`nucpro.options.ModelOptions`.

    Models are by default those that the classifier names, and ``auto`` is the precision of the training data on a GPU;
    each worker of a cluster has all encoders.

    Parameters
    ----------
    input : Path
        FASTA or FASTQ file, plain or packed with gzip, bzip2, xz or zstd, or a pipe.
    also : tuple of Path
        More files; the records of all are one input, and need ids of their own.
    model : Path
        Folder that ``nucpro train`` wrote; by default that of the data folder ``data``.
    output : Path, optional
        Folder for the result; by default beside the input, with its name and ``_prediction``.
    length : int, optional
        Bases of a full chunk; by default that of the classifier's training data.
    chunks_per_unit : int, optional
        Chunks that are scored and kept at a time; the default depends on the class of device only.
    min_length : int, optional
        Bases below which a sequence is undetermined; by default half a chunk, since no longer genome was cut into
        shorter chunks in training.
    threshold : float, optional
        Score from which on a sequence is viral; by default that of the classifier's card.
    json : bool
        Also write everything as one JSON document.
    original_names : bool
        Also write the two files that VirNucPro writes, by its names.
    viral_fasta, gff3, bed, html, multiqc : bool
        Also write the viral sequences, their viral frames in two formats, a page, and a table for MultiQC.
    plots : int
        Draw so many of the longest sequences.
    plot_format : {"png", "svg", "pdf"}
        Format of the pictures.
    replace : bool
        Overwrite another prediction in the output folder.

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
    also: tuple[Path, ...] = ()
    min_length: int | None = None
    threshold: float | None = None
    json: bool = False
    original_names: bool = False
    viral_fasta: bool = False
    gff3: bool = False
    bed: bool = False
    html: bool = False
    multiqc: bool = False
    plots: int = 0
    plot_format: str = "png"
    replace: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output is None and (self.input == STANDARD_INPUT or is_pipe(self.input)):
            raise UsageError(
                f"{self.input} is a pipe, so the output folder has no default name; name it with --output"
            )
        if self.output is None and self.also:
            raise UsageError(
                f"{1 + len(self.also)} files are one input; name the output folder with --output"
            )
        twice = [path for path in self.inputs if self.inputs.count(path) > 1]
        if twice:
            raise UsageError(f"{twice[0]} is named twice; name it once")
        lowest = (
            ("--length", self.length, SHORTEST_CHUNK),
            ("--min-length", self.min_length, 0),
            ("--chunks-per-unit", self.chunks_per_unit, 1),
            ("--plot", self.plots, 0),
        )
        for option, value, least in lowest:
            require(value is None or value >= least, option, value, f"{least} or more")
        only = self.plots or self.plot_format == PLOT_FORMATS[0]
        require(bool(only), "--plot-format", self.plot_format, "only with --plot")
        require(self.threshold is None or 0 <= self.threshold <= 1, "--threshold", self.threshold, "0 to 1")

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files of the input."""
        return (self.input, *self.also)

    @property
    def folder(self) -> Path:
        """Folder for the result."""
        if self.output is not None:
            return self.output
        return self.input.with_name(f"{bare_name(self.input)}_prediction")


_UNIT = re.compile(r"unit_([1-9][0-9]*)\.json")
_PICTURE = re.compile(r"(.+\.)?sequence_[1-9][0-9]*\.(png|svg|pdf)")
_LONGEST_NAME = 100


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

    sequences = below("sequences.tsv")
    """One line per record."""
    chunks = below("chunks.tsv")
    """One line per chunk."""
    frames = below("frames.tsv")
    """One line per scored frame."""
    record = below("prediction.json")
    """What made the tables."""
    document = below("predictions.json")
    """Everything in one JSON document."""
    original_frames = below("prediction_results.txt")
    """Scores of frames under VirNucPro's file name."""
    original_chunks = below("prediction_results_highestscore.csv")
    """Verdicts on chunks under VirNucPro's file name."""
    plots = below("plots")
    """Folder of the pictures."""
    viral_fasta = below("viral.fasta")
    """Sequences that are viral."""
    gff3 = below("viral_frames.gff3")
    """Viral frames, from 1, both ends included."""
    bed = below("viral_frames.bed")
    """Viral frames, from 0, the end not included."""
    html = below("summary.html")
    """The prediction at a glance."""
    multiqc = below("nucpro_mqc.json")
    """What MultiQC reads."""
    lock = below(".prediction.lock")
    """Held by the run that writes here."""
    work = below("unfinished")
    """Folder of the finished units of an unfinished run."""
    work_record = below("unfinished/run.json")
    """What makes the units of the work folder."""

    @property
    def tables(self) -> tuple[Path, Path, Path]:
        """The three tables, in the order in which they are written."""
        return self.sequences, self.chunks, self.frames

    def plot(self, record: str, number: int, form: str = "png") -> Path:
        """Picture of a record, by its id and its number in the input, counted from 1; ids may look alike in a name."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", record).strip(".")[:_LONGEST_NAME]
        return self.plots / f"{name or 'record'}.sequence_{number}.{form}"

    def unit(self, number: int) -> Path:
        """Scores of a unit."""
        return self.work / f"unit_{number}.json"

    def pictures(self) -> list[Path]:
        """Existing pictures of this prediction, without those of other origin."""
        return [path for path in sorted(self.plots.glob("*")) if _PICTURE.fullmatch(path.name)]
