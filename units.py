"""The functions that VirNucPro scripts import from ``units``, on top of the package nucpro.

Names and signatures are those that existing scripts use; nothing is implemented here. torch and the
encoders are imported when a function needs them, so that worker processes stay light.
"""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import nucpro
except ModuleNotFoundError:  # a clone that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
    import nucpro

from nucpro import fasta, merge, store
from nucpro.errors import DimensionError, UsageError
from nucpro.layout import (
    CLASS_NAMES,
    MAX_RESIDUES,
    SEQUENCES_PER_FILE,
    VIRAL,
    Side,
    below_merge_root,
    category_of,
    contradiction_in,
)
from nucpro.layout import DNA_WIDTH as DNA_DIM
from nucpro.layout import MERGED_WIDTH as MERGED_DIM
from nucpro.layout import PROTEIN_WIDTH as PROTEIN_DIM
from nucpro.options import Options

if TYPE_CHECKING:
    import torch

    from nucpro.encoders import FastaEncoder

__all__ = [
    "DNA_DIM",
    "MERGED_DIM",
    "PROTEIN_DIM",
    "DimensionError",
    "as_encoder",
    "extract_fast_esm",
    "merge_data",
    "nucpro",
    "split_fasta_chunk",
    "split_fasta_file",
    "validate_merge_inputs",
    "validate_merged_output",
]

_encoders: weakref.WeakKeyDictionary[Any, FastaEncoder] = weakref.WeakKeyDictionary()


def extract_fast_esm(
    fasta_file: str | Path,
    out_file: str | Path | None = None,
    model: Any = None,
    tokenizer: Any = None,
    truncation_seq_length: int = MAX_RESIDUES,
    toks_per_batch: int | None = None,
) -> tuple[list[str], list[torch.Tensor]]:
    """Embed the proteins of a FASTA file, and write them to a file where one is named.

    Parameters
    ----------
    fasta_file : str or Path
        Protein FASTA.
    out_file : str or Path, optional
        ``_ESM.pt`` file to write.
    model : optional
        What :func:`nucpro.encoders.load` returns, or an ESM-2 model object of transformers
        (``AutoModel.from_pretrained(...)``); by default FastESM2_650 on the GPU.
    tokenizer : optional
        Tokenizer of such a model object; its vocabulary is used.
    truncation_seq_length : int
        Residues after which a sequence is cut.
    toks_per_batch : int, optional
        Token budget of a batch; by default that of the device.

    Returns
    -------
    proteins : list of str
        Ids in FASTA order.
    data : list of torch.Tensor
        float32 ``[width]``, one a record.

    Raises
    ------
    FastaError, ModelError, ExtractionError, StoreError
        See :meth:`nucpro.encoders.FastaEncoder.extract`.
    """
    import torch  # noqa: PLC0415

    encoder = as_encoder(model, tokenizer).limited(truncation_seq_length, toks_per_batch)
    path = Path(fasta_file)
    vectors = encoder.embed(fasta.read(path)) if out_file is None else encoder.extract(path, Path(out_file))
    return list(vectors.names), list(torch.from_numpy(vectors.matrix).unbind(0))


def as_encoder(model: Any = None, tokenizer: Any = None) -> FastaEncoder:
    """Turn what scripts pass as a model into an encoder of nucpro; a model object is taken over once.

    Raises
    ------
    ModelError
        The object is not an ESM-2.
    """
    from nucpro import encoders  # noqa: PLC0415

    if isinstance(model, encoders.FastaEncoder):
        return model
    if model is None:
        options = Options()
        return encoders.load(encoders.identify(options, Side.PROTEIN), options)
    if model not in _encoders:
        _encoders[model] = encoders.of_huggingface(model, tokenizer)
    return _encoders[model]


def merge_data(
    DNABERT_S_data: str | Path,  # noqa: N803 - the name that existing scripts use
    ESM_data: str | Path,  # noqa: N803
    merged_file: str | Path,
    data_type: str | None = None,
) -> None:
    """Merge a ``_DNABERT_S.pt`` and an ``_ESM.pt`` file, row by row matched by id.

    Parameters
    ----------
    DNABERT_S_data, ESM_data, merged_file : str or Path
        Both sources and the file to write.
    data_type : {'viral', 'host'}, optional
        The class; by default that of the category that the merged file's path names: its folder ``X_merged``,
        or a folder on the way from ``data_merge`` whose whole name is a category.

    Raises
    ------
    MergeError, DimensionError, StoreError
        See :func:`nucpro.merge.merge`.
    UsageError
        The class is unknown.
    """
    class_name = data_type or _class_of(Path(merged_file))
    if class_name not in CLASS_NAMES:
        raise UsageError(f"{merged_file}: data_type is {class_name!r}; allowed: {', '.join(CLASS_NAMES)}")
    merge.merge(Path(DNABERT_S_data), Path(ESM_data), Path(merged_file), class_name)


def _class_of(merged_file: Path) -> str | None:
    relative = below_merge_root(merged_file)
    doubt = contradiction_in(relative)
    if doubt:
        raise UsageError(f"{merged_file}: {doubt}, or give data_type")
    category = category_of(relative)
    return None if category is None else CLASS_NAMES[category == VIRAL]


def validate_merge_inputs(nucleotide_tensor: Any, protein_tensor: Any, seq_id: str) -> None:
    """Raise where one of the two vectors of a sequence has the wrong width.

    Raises
    ------
    DimensionError
        Names the sequence, what was expected and what was found.
    """
    for what, tensor, width in (
        ("DNA", nucleotide_tensor, DNA_DIM),
        ("protein", protein_tensor, PROTEIN_DIM),
    ):
        if tuple(tensor.shape) != (width,):
            raise DimensionError(f"{seq_id}: shape of the {what} vector", (width,), tuple(tensor.shape))


def validate_merged_output(merged_tensor: Any, seq_id: str = "merged rows") -> None:
    """Raise where merged rows do not have 2048 columns.

    Raises
    ------
    DimensionError
        Names the rows, what was expected and what was found.
    """
    if merged_tensor.shape[-1] != MERGED_DIM:
        raise DimensionError(f"{seq_id}: columns", MERGED_DIM, merged_tensor.shape[-1])


def split_fasta_file(
    input_file: str | Path, output_dir: str | Path, sequences_per_file: int = SEQUENCES_PER_FILE
) -> int:
    """Split a FASTA file into ``output_1.fa``, ``output_2.fa``, …; returns how many were written."""
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    return fasta.split(Path(input_file), Path(output_dir), sequences_per_file)


def split_fasta_chunk(input_file: str | Path, output_file: str | Path, chunk_size: int) -> None:
    """Cut sequences into chunks of at most ``chunk_size`` letters, called ``ID_chunk_1``, ``ID_chunk_2``, …."""
    from nucpro.dataset.chunks import chunks_of  # noqa: PLC0415

    records = fasta.read(Path(input_file))
    with store.replace_file(Path(output_file)) as output:
        for name, sequence in zip(records.ids, records.sequences, strict=True):
            chunks = chunks_of(len(sequence), chunk_size)
            for number, start, end in zip(chunks.numbers, chunks.starts, chunks.ends, strict=True):
                output.write(b">%b_chunk_%d\n%b\n" % (name.encode(), number + 1, sequence[start:end]))
