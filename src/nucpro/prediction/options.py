"""Options of a prediction: one frozen record, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nucpro.errors import UsageError
from nucpro.opening import STANDARD_INPUT, is_pipe
from nucpro.options import Options, ParsedOptions, require

__all__ = ["DEFAULT_PLOTS", "PredictionOptions"]

DEFAULT_PLOTS = 10
"""Pictures that are drawn where their number is not given."""

_PACKED = (".gz", ".bgz", ".bz2", ".xz")
_FORMATS = (".fasta", ".fa", ".fna", ".ffn", ".fas", ".fastq", ".fq")


@dataclass(frozen=True)
class PredictionOptions(ParsedOptions):
    """Options of ``nucpro predict``.

    Parameters
    ----------
    input : Path
        FASTA or FASTQ file, plain or packed with gzip, bzip2 or xz, or a pipe.
    model : Path
        Folder that ``nucpro train`` wrote.
    output : Path, optional
        Folder for the result; by default beside the input, with its name and ``_prediction``.
    length : int, optional
        Bases of a full chunk; by default that of the classifier's training data.
    protein_model, dna_model : str, optional
        Hub id or folder of the encoders; by default those that the classifier names.
    revision, dna_revision : str, optional
        Their revisions on the hub.
    device, precision : str
        As in :class:`nucpro.options.Options`; ``auto`` is the precision of the training data on a GPU.
    tokens_per_batch : int, optional
        Token budget of a batch.
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
    engine, address, workers, gpus_per_worker, cpus_per_worker
        As in :class:`nucpro.options.Options`; each worker of a cluster has both encoders.

    Raises
    ------
    UsageError
        A value that is not allowed.
    """

    input: Path
    model: Path
    output: Path | None = None
    length: int | None = None
    protein_model: str | None = None
    dna_model: str | None = None
    revision: str | None = None
    dna_revision: str | None = None
    device: str = "cuda"
    precision: str = "auto"
    tokens_per_batch: int | None = None
    chunks_per_unit: int | None = None
    json: bool = False
    original_names: bool = False
    plots: int = 0
    replace: bool = False
    engine: str = "local"
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float = 1.0
    cpus_per_worker: float = 1.0

    def __post_init__(self) -> None:
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
        # Those that are about devices are checked where they are used in all commands.
        _ = self.machines

    @property
    def machines(self) -> Options:
        """Options of the engine."""
        names = ("device", "precision", "engine", "address", "workers", "gpus_per_worker", "cpus_per_worker")
        return Options(**{name: getattr(self, name) for name in names})

    @property
    def folder(self) -> Path:
        """Folder for the result."""
        if self.output is not None:
            return self.output
        name = self.input.name
        name = name.removesuffix(next((suffix for suffix in _PACKED if name.endswith(suffix)), ""))
        suffix = next((suffix for suffix in _FORMATS if name.endswith(suffix)), "")
        return self.input.with_name(f"{name.removesuffix(suffix) or name}_prediction")
