"""Precisions and options of the models, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, cast

from nucpro.errors import UsageError
from nucpro.formats.opening import path_of
from nucpro.formats.sequences import SequenceType

__all__ = [
    "AUTO",
    "AUTO_DEVICE",
    "DEFAULT_MODELS",
    "ENGINES",
    "NAMED_PRECISIONS",
    "PRECISIONS",
    "SEQUENCES_PER_FILE",
    "TOKEN_DROPOUT",
    "HostSelection",
    "ModelOptions",
    "Options",
    "ParsedOptions",
    "lasting_name",
    "precision_problem",
    "require",
]

SEQUENCES_PER_FILE = 10_000
"""Records of a full split file."""


class HostSelection(StrEnum):
    """How host files are chosen."""

    AUTO = "auto"
    EXISTING = "existing"
    SEEDED = "seeded"
    ALL = "all"


AUTO_DEVICE = "auto"
"""A GPU if there is one, else the CPU."""
AUTO = "auto"
"""fp16 on a GPU and fp32 on a CPU."""
NAMED_PRECISIONS = ("fp16", "bf16", "fp32")
"""Arithmetic of the encoder. On a GPU weights and activations have it; on a CPU bf16 is that of matrix products, and
everything else is float32."""


def precision_problem(precision: str, device: str) -> str | None:
    """Why a precision cannot be used on a device; None if it can.

    Parameters
    ----------
    precision : str
        :data:`AUTO` or one of :data:`NAMED_PRECISIONS`.
    device : str
        ``cpu``, or that of a GPU.
    """
    if precision not in (AUTO, *NAMED_PRECISIONS):
        return f"precision {precision!r} is unknown; allowed are {AUTO}, {', '.join(NAMED_PRECISIONS)}"
    if precision == "fp16" and device == "cpu":
        return (
            "precision fp16 was asked for on a CPU, where it takes two to five times as long as fp32 (processors "
            "have no fast float16 products); ask for fp32, for bf16 if the processor has AMX or AVX512-BF16, "
            "or for a GPU (--device cuda)"
        )
    return None


DEFAULT_MODELS = {SequenceType.PROTEIN: "Synthyra/FastESM2_650", SequenceType.DNA: "zhihan1996/DNABERT-S"}
"""Hub ids of the models, by sequence type."""
PRECISIONS = (AUTO, *NAMED_PRECISIONS)
"""Arithmetic of the encoder; ``auto`` is fp16 on a GPU and fp32 on a CPU."""
ENGINES = ("local", "ray")
"""Engines: one device of this machine, or all workers of a Ray cluster."""
TOKEN_DROPOUT = ("auto", "on", "off")
"""Rescaling of token embeddings by 0.88; ``auto`` follows the checkpoint's config."""


class ParsedOptions:
    """Options of a command: a dataclass that can be built from parsed arguments."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from parsed arguments; unknown keys are refused.

        Raises
        ------
        UsageError
            An unknown key or a value that is not allowed.
        """
        unknown = values.keys() - {field.name for field in fields(cast(Any, cls))}
        if unknown:
            raise UsageError(f"unknown options: {', '.join(sorted(unknown))}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class ModelOptions(ParsedOptions):
    """Models and where they run: options of all commands that encode.

    Parameters
    ----------
    protein_model, revision : str, optional
        Hub id or folder of the protein model, and the revision on the hub; by default what is recorded in the data
        folder, else the model of :data:`DEFAULT_MODELS`.
    dna_model, dna_revision : str, optional
        The same of the DNA model.
    device : str
        ``cuda``, ``cuda:N`` or ``cpu``; a named device is used or refused, never replaced. ``auto`` is a GPU
        if there is one (:func:`nucpro.embedding.device.settled`).
    precision : str
        One of :data:`PRECISIONS`; ``auto`` is what is recorded in the data folder, else the default of the
        device.
    tokens_per_batch : int, optional
        Token budget of a batch; the default depends only on the class of device.
    engine : str
        One of :data:`ENGINES`.
    address : str, optional
        ``host:port`` of a running Ray cluster, or ``auto`` for the one that this machine is part of; by default
        a cluster of this machine alone is started for the run.
    workers : int, optional
        Encoders on the cluster; by default as many as its nodes can hold.
    gpus_per_worker, cpus_per_worker : float
        Resources per encoder; a fraction of a GPU if several encoders share it.

    Raises
    ------
    UsageError
        A value that is not allowed.
    """

    protein_model: str | None = None
    revision: str | None = None
    dna_model: str | None = None
    dna_revision: str | None = None
    device: str = "cuda"
    precision: str = "auto"
    tokens_per_batch: int | None = None
    engine: str = "local"
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float = 1.0
    cpus_per_worker: float = 1.0

    def __post_init__(self) -> None:
        require(
            self.precision in PRECISIONS, "--precision", self.precision, f"one of {', '.join(PRECISIONS)}"
        )
        budget = self.tokens_per_batch
        require(budget is None or budget > 0, "--tokens-per-batch", budget, "1 or more")
        kind, _, number = self.device.partition(":")
        known = self.device in ("auto", "cpu", "cuda") or (kind == "cuda" and number.isdecimal())
        require(known, "--device", self.device, "auto, cuda, cuda:N or cpu")
        if problem := precision_problem(self.precision, self.device):
            raise UsageError(problem)
        self._check_engine()

    def model_of(self, sequence_type: SequenceType) -> tuple[str, str | None]:
        """Hub id or folder, and revision, of the model for a sequence type."""
        if sequence_type is SequenceType.DNA:
            return self.dna_model or DEFAULT_MODELS[sequence_type], self.dna_revision
        return self.protein_model or DEFAULT_MODELS[sequence_type], self.revision

    def asks_for_model(self, sequence_type: SequenceType) -> bool:
        """Whether a model for a sequence type is given explicitly."""
        return (self.dna_model if sequence_type is SequenceType.DNA else self.protein_model) is not None

    def require_no_model(self, sequence_type: SequenceType, allowed: str) -> None:
        """Refuse options of the model for a sequence type that would be ignored.

        Raises
        ------
        UsageError
            The message names the option, and where it is allowed.
        """
        options = {"--protein-model": self.protein_model, "--protein-revision": self.revision}
        if sequence_type is SequenceType.DNA:
            options = {"--dna-model": self.dna_model, "--dna-revision": self.dna_revision}
        for name, value in options.items():
            require(value is None, name, value, allowed)

    def with_model(self, sequence_type: SequenceType, model: str, revision: str | None) -> Self:
        """The same options with another model for a sequence type, and this revision if none is given."""
        if sequence_type is SequenceType.DNA:
            return replace(self, dna_model=model, dna_revision=self.dna_revision or revision)
        return replace(self, protein_model=model, revision=self.revision or revision)

    @property
    def uses_cluster(self) -> bool:
        """Whether the work runs on a cluster."""
        return self.engine == "ray"

    def anywhere(self) -> Self:
        """Make the same options with absolute paths, which workers in other folders understand."""
        protein, dna = (model and lasting_name(model) for model in (self.protein_model, self.dna_model))
        return replace(self, protein_model=protein, dna_model=dna)

    def _check_engine(self) -> None:
        require(self.engine in ENGINES, "--engine", self.engine, "local or ray")
        require(self.workers is None or self.workers > 0, "--workers", self.workers, "1 or more")
        for name, share in (("gpus", self.gpus_per_worker), ("cpus", self.cpus_per_worker)):
            # Ray counts whole devices, or parts of one.
            fine = 0 < share < 1 or (share >= 1 and float(share).is_integer())
            allowed = "a number above 0: a part of 1, or a whole number"
            require(fine, f"--{name}-per-worker", share, allowed)
            needless = not self.uses_cluster and share != 1
            require(not needless, f"--{name}-per-worker", share, "only with --engine ray")
        if self.uses_cluster:
            host, _, port = (self.address or "auto:0").rpartition(":")
            plain = self.address == "auto" or (port.isdecimal() and bool(host) and "/" not in host)
            require(plain, "--address", self.address, "auto, or HOST:PORT of the cluster's head")
            devices = ("auto", "cpu", "cuda")
            require(self.device in devices, "--device", self.device, "auto, cuda or cpu with --engine ray")
        else:
            require(self.address is None, "--address", self.address, "only with --engine ray")
            require(self.workers is None, "--workers", self.workers, "only with --engine ray")


@dataclass(frozen=True)
class Options(ModelOptions):
    """Options of ``nucpro extract`` and ``scripts/extract_training_data.py``, with those of :class:`ModelOptions`.

    Parameters
    ----------
    data_dir : Path
        The data folder.
    sequences_per_file : int, optional
        Records of a full split file; by default what is recorded in the data folder, else what its split folders hold,
        else :data:`SEQUENCES_PER_FILE`.
    host_selection : HostSelection
        How host files are chosen.
    strict_sampling : bool
        Refuse a selection with fewer host files than asked for.
    trust_existing : bool
        Keep files of the right width without provenance.
    verify_existing : int
        Records to recompute of each file without provenance, which is kept if they agree.
    token_dropout : str
        One of :data:`TOKEN_DROPOUT`; ``auto`` is the option that was given with the recorded model.
    audit : int
        Number of random sequences to recompute in float32 after the run.
    dry_run : bool
        Check and show the plan only.
    with_dna : bool
        Make missing DNABERT-S files first.
    report : bool
        Write the report at the end of the run.
    replace : bool
        Recompute files of another or an unknown model, or with other options.
    all_files : bool
        For DNA: all full files, not only the selected ones.

    Raises
    ------
    UsageError
        A value that is not allowed.
    """

    data_dir: Path = Path("data")
    sequences_per_file: int | None = None
    host_selection: HostSelection = HostSelection.AUTO
    strict_sampling: bool = False
    trust_existing: bool = False
    verify_existing: int = 0
    token_dropout: str = "auto"  # noqa: S105 - not a secret
    audit: int = 0
    dry_run: bool = False
    with_dna: bool = False
    report: bool = True
    replace: bool = False
    all_files: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.token_dropout in TOKEN_DROPOUT, "--token-dropout", self.token_dropout, "auto, on or off")
        size = self.sequences_per_file
        require(size is None or size > 0, "--sequences-per-file", size, "1 or more")
        require(self.audit >= 0, "--audit", self.audit, "0 or more")
        require(self.verify_existing >= 0, "--verify-existing", self.verify_existing, "0 or more")
        both = self.trust_existing and self.verify_existing
        require(not both, "--verify-existing", self.verify_existing, "only without --trust-existing")
        chosen = self.host_selection if self.host_selection is not HostSelection.AUTO else None
        require(not self.all_files or chosen is None, "--host-selection", chosen, "only without --all")
        require(
            not self.all_files or not self.strict_sampling, "--strict-sampling", "given", "only without --all"
        )

    def require_no_model(self, sequence_type: SequenceType, allowed: str) -> None:
        """Refuse options of the model for a sequence type that would be ignored.

        Parameters
        ----------
        sequence_type : SequenceType
            Sequence type of the model.
        allowed : str
            When these options are allowed, for the message.
        """
        super().require_no_model(sequence_type, allowed)
        is_default = sequence_type is SequenceType.DNA or self.token_dropout == TOKEN_DROPOUT[0]
        require(is_default, "--token-dropout", self.token_dropout, allowed)

    def anywhere(self) -> Self:
        """Make the same options with absolute paths, which workers in other folders understand.

        Returns
        -------
        Options
            The same options with absolute paths.
        """
        return replace(super().anywhere(), data_dir=self.data_dir.absolute())


def lasting_name(model: str) -> str:
    """Name of a model that is valid in any working directory: an absolute path or a hub id."""
    path = path_of(model)
    return str(path.absolute()) if path.exists() else model


def require(fine: bool, name: str, value: object, allowed: str) -> None:
    """Refuse an invalid value of an option.

    Raises
    ------
    UsageError
        The message names the option, the value and what is allowed.
    """
    if not fine:
        raise UsageError(f"{name} is {value}; allowed: {allowed}")
