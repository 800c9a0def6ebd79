"""The public API of the library, for scripts and notebooks; :mod:`nucpro` exports these names.

Every function accepts file names as text or as paths, raises the errors of :mod:`nucpro.errors`, and calls
the same code as the commands. torch is imported when an encoder or a classifier is loaded.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucpro import formats
from nucpro.errors import DataError, UsageError, counted
from nucpro.folder.kinds import Kind, place_problems
from nucpro.formats import MergedFile
from nucpro.formats.atomic import replacing_problems
from nucpro.formats.fasta import Records
from nucpro.formats.sequences import SequenceType
from nucpro.options import AUTO, DEFAULT_MODELS, Options, require
from nucpro.progress import Meter, Show, bar, silent
from nucpro.vectors.inputs import (
    Sequences,
    default_part_size,
    parts_of,
    records_of,
    require_proteins,
    require_short,
)
from nucpro.vectors.outputs import Content, format_of, read_content

if TYPE_CHECKING:
    import pandas as pd

    from nucpro.embedding.batches import Vectors
    from nucpro.embedding.encoder import FastaEncoder
    from nucpro.vectors.inputs import Part, PartSize

__all__ = [
    "Embeddings",
    "Encoder",
    "Prediction",
    "Rows",
    "load_encoder",
    "load_rows",
    "predict",
    "read_merged",
    "read_vectors",
]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Vectors of records, in input order; NumPy accepts it as an array.

    Attributes
    ----------
    ids : list of str
        One per row.
    matrix : ndarray of float32, shape [N, D]
        One row per record.
    truncated : int
        Records that are longer than the model reads, and were truncated.
    meta : mapping
        Their provenance.
    """

    ids: list[str]
    matrix: NDArray[np.float32]
    truncated: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        maker = self.meta.get("made_by", {}).get("id", "an unknown model")
        return (
            f"<Embeddings: {counted(len(self), 'record')}, "
            f"{counted(self.matrix.shape[1], 'column')}, made by {maker}>"
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Vector of a record."""
        try:
            row: NDArray[np.float32] = self.matrix[self.ids.index(name)]
        except ValueError as error:
            raise DataError(f"no record is called {name!r}") from error
        return row

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.matrix, dtype=dtype, copy=copy)

    def to_frame(self) -> pd.DataFrame:
        """Table with the ids as index and one column per number of a vector.

        Returns
        -------
        pandas.DataFrame
            Float32, shape ``[N, width]``.

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        _require_pandas()
        import pandas as pd  # noqa: PLC0415 - not needed by anything else

        return pd.DataFrame(self.matrix, index=pd.Index(self.ids, name="id"))

    def save(self, path: PathLike, *, replace: bool = False) -> None:
        """Write a file as ``nucpro embed`` writes it: ``.pt``, ``.npz``, ``.parquet`` or ``.safetensors``.

        Parameters
        ----------
        path : str or Path
            File to write; its suffix sets the format.
        replace : bool
            Replace an existing file that ``nucpro embed`` or this method did not write.

        Raises
        ------
        UsageError
            The suffix is not a known format, a file of that name exists and `replace` is not set, or the folder holds
            a model or the files of a run.
        StoreError
            It cannot be written.
        """
        target = Path(path)
        form = format_of(target)
        misplaced = place_problems(target.parent, "vectors", {Kind.DATA})
        if problems := misplaced or replacing_problems([target], lambda _: False, replace=replace):
            raise UsageError(problems[0].replace("--replace", "replace=True"))
        kind = SequenceType(self.meta.get("kind", SequenceType.PROTEIN))
        form.write(target, Content(self.ids, self.matrix, self.meta, kind))


class Encoder:
    """A loaded model; see :func:`load_encoder`.

    Attributes
    ----------
    name : str
        Hub id of the model, or name of its folder.
    sequence_type : str
        Sequence type that it reads: ``protein`` or ``dna``.
    width : int
        Columns of a vector.
    device, precision : str
        Device and precision of the computation.
    """

    def __init__(self, encoder: FastaEncoder, *, refuse_long: bool = False) -> None:
        self._encoder = encoder
        self._refuse_long = refuse_long
        made_by = encoder.recipe.made_by
        self.name: str = made_by["id"]
        self.sequence_type = str(encoder.sequence_type)
        self.width = encoder.recipe.width
        self.device = str(encoder.embedder.encoder.device)
        self.precision: str = made_by["precision"]

    def __repr__(self) -> str:
        return (
            f"<Encoder {self.name}: {self.sequence_type} sequences to {self.width} columns, {self.precision} on "
            f"{self.device}>"
        )

    def embed(
        self, sequences: Sequences, *, progress: bool | Show = False, insist: bool = False
    ) -> Embeddings:
        """Vectors of sequences.

        Parameters
        ----------
        sequences : list, dict, path or records
            Sequences, one after the other or by id; pairs of id and sequence; objects with ``id`` and
            ``seq``; the name of a FASTA file, plain or compressed; or :class:`nucpro.formats.fasta.Records`.
            Upper or lower case.
        progress : bool or callable
            Show a bar on standard error, or call a function with :class:`nucpro.progress.Progress`.
        insist : bool
            Accept proteins that look like nucleotides.

        Returns
        -------
        Embeddings
            Float32, in input order. A vector does not depend on the other sequences, except for rounding.

        Raises
        ------
        FastaError
            A file cannot be read, or a record cannot be used, or is longer than the model reads with
            ``long="refuse"``.
        UsageError
            Sequences have an unsupported type.
        ExtractionError
            The encoder failed on a record.
        """
        records = self._usable(sequences, insist=insist)
        matrix = np.empty((len(records), self.width), np.float32)
        start = truncated = 0
        for part, vectors in _by_part(self._encoder, records, default_part_size(self.device), progress):
            matrix[start : start + len(part.records)] = vectors.matrix
            start, truncated = start + len(part.records), truncated + vectors.truncated
        meta = self._encoder.recipe.meta(records.digest(), len(records))
        return Embeddings(list(records.ids), matrix, truncated, meta)

    def embed_residues(
        self,
        sequences: Sequences,
        *,
        dtype: str = "float16",
        progress: bool | Show = False,
        insist: bool = False,
    ) -> Iterator[tuple[str, NDArray[np.floating[Any]]]]:
        """Vectors of the residues of proteins, record by record; a few parts of the work are in memory at a time.

        Parameters
        ----------
        sequences, progress, insist
            As in :meth:`embed`.
        dtype : {'float16', 'float32'}
            Element type.

        Yields
        ------
        id : str
            Of a record, in the order given.
        vectors : ndarray of ``dtype``, shape [L, D]
            A row per residue that the model reads, special tokens excluded; several layers side by side.

        Raises
        ------
        UsageError
            The model reads nucleotides, or was loaded with a pooling other than the mean.
        FastaError, ExtractionError
            As in :meth:`embed`.
        """
        if self._encoder.sequence_type is not SequenceType.PROTEIN:
            raise UsageError(
                f"{self.name} reads nucleotides in tokens of several bases; load a protein encoder"
            )
        readout = replace(self._encoder.embedder.readout, per_residue=dtype)
        encoder = self._encoder.reading(readout)
        width = len(readout.layers) * encoder.embedder.encoder.width
        size = default_part_size(self.device, width * np.dtype(dtype).itemsize)
        records = self._usable(sequences, insist=insist)
        return _rows_by_record(_by_part(encoder, records, size, progress))

    def _usable(self, sequences: Sequences, *, insist: bool) -> Records:
        records = records_of(sequences)
        self._encoder.require_usable(records)
        if self._encoder.sequence_type is SequenceType.PROTEIN and not insist:
            require_proteins(records)
        if self._refuse_long:
            require_short(records, self._encoder.sequence_type)
        return records


def _by_part(
    encoder: FastaEncoder, records: Records, size: PartSize, progress: bool | Show
) -> Iterator[tuple[Part, Vectors]]:
    from nucpro.execution.engine import in_order  # noqa: PLC0415

    parts = parts_of(records.path, zip(records.ids, records.sequences, strict=True), size)
    with _shown(progress) as show:
        meter = Meter(show, "Embedding", len(records), "sequences", work=sum(map(len, records.sequences)))
        for part, _, vectors in in_order(parts, partial(_embed_part, encoder)):
            yield part, vectors
            meter.advance(len(part.records), part.size)


def _rows_by_record(parts: Iterator[tuple[Part, Vectors]]) -> Iterator[tuple[str, NDArray[Any]]]:
    for part, vectors in parts:
        yield from zip(part.records.ids, vectors.by_record(), strict=True)


def _embed_part(encoder: FastaEncoder, part: Part) -> Vectors:
    return encoder.embed_checked(part.records)


def load_encoder(  # noqa: PLR0913 - the options of a model, each by its keyword
    model: PathLike | None = None,
    *,
    revision: str | None = None,
    adapter: PathLike | None = None,
    device: str = AUTO,
    precision: str = AUTO,
    token_dropout: str = AUTO,
    layer: int | Sequence[int] = -1,
    pool: str | Sequence[str] = "mean",
    long: str = "cut",
    tokens_per_batch: int | None = None,
) -> Encoder:
    """Load a model that turns sequences into vectors.

    Parameters
    ----------
    model : str or path, optional
        ``protein`` (FastESM2_650), ``dna`` (DNABERT-S), the hub id of another ESM-2, DNABERT-S or DNABERT-2 model, or
        a folder with one; by default ``protein``, or the base model that the adapter names.
    revision : str, optional
        Branch, tag or commit on the hub.
    adapter : str or path, optional
        Folder of a LoRA adapter of PEFT, merged into the model.
    device : str
        ``auto`` (a GPU if there is one, else the CPU; it is logged), ``cuda``, ``cuda:N`` or ``cpu``.
    precision : str
        ``auto`` (fp16 on a GPU, fp32 on a CPU), ``fp16``, ``bf16`` or ``fp32``.
    token_dropout : str
        ``auto`` (as in the checkpoint), ``on`` or ``off``.
    layer : int or sequence of int
        As in the ``hidden_states`` of transformers: 0 is the embedding, -1 the last layer, the only one after
        the final norm. Layers above the highest are not computed.
    pool : str or sequence of str
        ``mean``, ``max``, ``min``, ``std`` or ``cls``. Several are concatenated in the given order, layer by
        layer.
    long : {'cut', 'window', 'refuse'}
        Records longer than the model reads: truncate them; read proteins in windows that overlap by half, whose states
        are averaged residue by residue; or refuse them.
    tokens_per_batch : int, optional
        Token budget of a batch; the default depends on the device.

    Returns
    -------
    Encoder
        The model on its device.

    Raises
    ------
    ModelError
        The model cannot be found or read.
    UsageError
        A value that is not allowed, or a missing device.
    """
    from nucpro.embedding import encoder as encoders  # noqa: PLC0415 - imports torch
    from nucpro.embedding.device import settled  # noqa: PLC0415
    from nucpro.models.architectures import sequence_type_of  # noqa: PLC0415
    from nucpro.models.config import LONG_RECORDS, REFUSE, WINDOW, Readout  # noqa: PLC0415
    from nucpro.models.weights import locate  # noqa: PLC0415

    require(long in LONG_RECORDS, "long", long, f"one of {', '.join(LONG_RECORDS)}")
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    poolings = (pool,) if isinstance(pool, str) else tuple(pool)
    readout = Readout(layers, poolings, windows=long == WINDOW)
    if model is None:
        model, adapter = adapter or SequenceType.PROTEIN.value, None
    name = {kind.value: default for kind, default in DEFAULT_MODELS.items()}.get(str(model), str(model))
    # Mistakes in options are reported before the hub is asked.
    asked = Options(
        device=device, precision=precision, token_dropout=token_dropout, tokens_per_batch=tokens_per_batch
    )
    found = locate(name, revision=revision, adapter=adapter)
    sequence_type = sequence_type_of(found)
    options = settled(asked.with_model(sequence_type, name, revision))
    identified = encoders.identify(options, sequence_type, files=found).reading(readout)
    return Encoder(encoders.load(identified, options), refuse_long=long == REFUSE)


class Rows(NamedTuple):
    """All merged rows of a data folder.

    Attributes
    ----------
    X : ndarray of float32, shape [N, D]
        DNA columns first (768), then protein (1280 with the default model).
    y : ndarray of int64, shape [N]
        1 viral, 0 host.
    ids : list of str
        One per row.
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    ids: list[str]

    def __repr__(self) -> str:
        viral = int(self.y.sum())
        shape = f"{counted(self.X.shape[0], 'row')} of {counted(self.X.shape[1], 'column')}"
        return f"<Rows: {shape}, {viral} viral and {len(self.y) - viral} host>"


def load_rows(data: PathLike, *, progress: bool | Show = False) -> Rows:
    """Read all merged rows of a data folder, checked as for training.

    The values of each file are copied once, or not at all for a single file.

    Parameters
    ----------
    data : str or path
        The data folder.
    progress : bool or callable
        As in :meth:`Encoder.embed`.

    Returns
    -------
    Rows
        ``X, y, ids``, files in natural order.

    Raises
    ------
    PreflightError
        There are no files, or they do not match: all problems at once.
    StoreError, ValidationError
        A file is damaged, has a wrong label, or repeats ids of another one.
    """
    from nucpro.classifier.sources import read_rows, survey  # noqa: PLC0415

    found = survey(Path(data))
    single: list[NDArray[np.float32]] = []
    put: Callable[[int, NDArray[np.float32]], object] = lambda _, vectors: single.append(vectors)  # noqa: E731
    if len(found.files) > 1:
        single.append(np.empty((found.rows, found.files[0].width), np.float32))
        put = partial(_put, single[0])
    with _shown(progress) as show:
        rows = read_rows(found, put, show)
    return Rows(single[0], rows.labels, rows.ids)


def _put(matrix: NDArray[np.float32], start: int, vectors: NDArray[np.float32]) -> None:
    matrix[start : start + len(vectors)] = vectors


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Scores of sequences, as tables of pandas.

    Attributes
    ----------
    sequences : DataFrame
        One row per record: bases, chunks, score, prediction.
    chunks : DataFrame
        One row per chunk.
    frames : DataFrame
        One row per reading frame that was scored.
    counts : mapping
        Totals.
    """

    sequences: pd.DataFrame
    chunks: pd.DataFrame
    frames: pd.DataFrame
    counts: Mapping[str, int]

    def __repr__(self) -> str:
        told = ", ".join(f"{self.counts[verdict]} {verdict}" for verdict in ("viral", "host", "undetermined"))
        return f"<Prediction: {counted(self.counts['records'], 'sequence')}, {told}>"


def predict(
    sequences: Sequences,
    model: PathLike,
    *,
    output: PathLike | None = None,
    device: str = AUTO,
    progress: bool | Show = False,
    **options: Any,
) -> Prediction:
    """Classify sequences as viral or host with a classifier from ``nucpro train``.

    Parameters
    ----------
    sequences : list, dict, path or records
        Nucleotides, as in :meth:`Encoder.embed`; a file may also be FASTQ.
    model : str or path
        Folder that ``nucpro train`` wrote.
    output : str or path, optional
        Folder for the tables, in which an interrupted prediction can be resumed; by default nothing is kept.
    device : str
        As in :func:`load_encoder`.
    progress : bool or callable
        As in :meth:`Encoder.embed`.
    **options
        Others of :class:`nucpro.prediction.options.PredictionOptions`: ``length``, ``protein_model``, ``dna_model``, …

    Returns
    -------
    Prediction
        Tables of sequences, chunks and frames, and their counts.

    Raises
    ------
    UsageError
        An unknown option, or pandas is not installed.
    PreflightError
        Problems of input, models, device or output, all at once.
    NucproError
        Others as :func:`nucpro.prediction.running.predict`.
    """
    from nucpro.prediction.options import OutputFolder, PredictionOptions  # noqa: PLC0415
    from nucpro.prediction.running import predict as run  # noqa: PLC0415

    _require_pandas()
    with tempfile.TemporaryDirectory(prefix="nucpro_") as scratch:
        folder = Path(scratch, "prediction") if output is None else Path(output)
        given = {"input": _file_with(sequences, Path(scratch)), "model": Path(model), "output": folder}
        asked = PredictionOptions.of({**given, "device": device, **options})
        with _shown(progress) as show:
            report = run(asked, show)
        tables = OutputFolder(folder)
        return Prediction(
            _table(tables.sequences), _table(tables.chunks), _table(tables.frames), report.counts
        )


def read_vectors(path: PathLike) -> Embeddings:
    """Read a file of vectors: any output of ``nucpro embed``, or an ``_ESM.pt`` or ``_DNABERT_S.pt`` file.

    Parameters
    ----------
    path : str or Path
        ``.pt``, ``.npz``, ``.parquet`` or ``.safetensors``.

    Returns
    -------
    Embeddings
        Ids, vectors as float32 ``[N, width]``, and how they were made.

    Raises
    ------
    UsageError
        The suffix is not a known format.
    StoreError
        The file cannot be read, is damaged, or contains no vectors.
    """
    content = read_content(Path(path))
    return Embeddings(content.ids, content.vectors, meta=content.meta)


def read_merged(path: PathLike) -> MergedFile:
    """Read a ``_merged.pt`` file: ids, rows, label and provenance.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    MergedFile
        Ids, rows as float32 ``[N, 2048]``, label and provenance.

    Raises
    ------
    StoreError
        The file cannot be read, is damaged, or is not a merged file.
    """
    return formats.read_merged(Path(path))


def _file_with(sequences: Sequences, folder: Path) -> Path:
    """Name of a file with the sequences; those in memory are written to one."""
    if isinstance(sequences, str | os.PathLike):
        return Path(sequences)
    records: Records = records_of(sequences)
    path = folder / "sequences.fa"
    lines = (
        b">%b\n%b\n" % pair for pair in zip(map(str.encode, records.ids), records.sequences, strict=True)
    )
    path.write_bytes(b"".join(lines))
    return path


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    # A record may be called NA.
    text = {"record": str, "prediction": str, "frame": str, "best_frame": str, "highest_frame": str}
    columns = pd.read_csv(path, sep="\t", nrows=0).columns
    missing = {name: [""] for name in columns if name not in text}
    return pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values=missing, quoting=3)


def _require_pandas() -> None:
    if find_spec("pandas") is None:
        raise UsageError(
            "tables need pandas, which is not installed; install the extra: pip install 'nucpro[frames]'"
        )


def _shown(progress: bool | Show) -> AbstractContextManager[Show]:
    """Callback for progress: a bar on standard error, the given function, or none."""
    if isinstance(progress, bool):
        return bar() if progress else nullcontext(silent)
    return nullcontext(progress)
