"""What the tests of prediction share: contigs, classifiers, commands, and results read back."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nucpro.classifier.card import ModelCard
from nucpro.classifier.model import Classifier, save
from nucpro.embedding import encoder as encoders
from nucpro.formats.fasta import stream
from nucpro.formats.sequences import DNA_WIDTH, SequenceType
from nucpro.options import Options

SEED = 11
GENOMES = Path(__file__).resolve().parents[2] / "demo" / "genomes"


@dataclass(frozen=True)
class Contig:
    """One record of an input."""

    name: str
    bases: str


def read_contigs(path: Path) -> list[Contig]:
    return [Contig(name, bases.decode()) for name, bases in stream(path)]


def write_contigs(path: Path, contigs: Sequence[Contig]) -> Path:
    """FASTA with wrapped lines, or FASTQ, by the name; compressed where it ends so."""
    if ".fastq" in path.name:
        text = "".join(f"@{c.name} read\n{c.bases}\n+\n{'I' * len(c.bases)}\n" for c in contigs)
    else:
        wrapped = ["\n".join(c.bases[i : i + 70] for i in range(0, len(c.bases), 70)) for c in contigs]
        text = "".join(f">{c.name} contig\n{lines}\n" for c, lines in zip(contigs, wrapped, strict=True))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def card_of(protein_model: Path, dna_model: Path, sides: tuple[str, ...] = ("dna", "protein")) -> ModelCard:
    """Card of a classifier that was trained on the vectors of two models, in fp32."""
    options = Options(protein_model=str(protein_model), dna_model=str(dna_model), device="cpu")
    recipes = {
        sequence_type: encoders.identify(options, sequence_type).recipe for sequence_type in SequenceType
    }
    widths = {"dna": DNA_WIDTH, "protein": recipes[SequenceType.PROTEIN].width}
    return ModelCard(
        input_width=sum(widths[sequence_type] for sequence_type in sides),
        sides=sides,
        widths=widths,
        encoders={str(sequence_type): dict(recipe.made_by) for sequence_type, recipe in recipes.items()},
        chunk_length=300,
    )


def save_classifier(folder: Path, card: ModelCard) -> Path:
    """A classifier with random weights, shifted so that its scores lie on both sides of 0.5."""
    torch.manual_seed(SEED)
    classifier = Classifier(card.input_width, card.hidden_width, card.dropout)
    with torch.no_grad():
        classifier.output.weight.mul_(8)
        classifier.output.bias.copy_(torch.tensor([0.0, 2.5]))
    save(folder, classifier.eval(), card)
    return folder


def arguments(path: Path, classifier: Path, models: tuple[Path, Path], *more: str) -> list[str]:
    """Arguments of ``nucpro`` for a prediction on the CPU, beside the input."""
    protein_model, dna_model = map(str, models)
    return [
        *("predict", str(path), "--model", str(classifier), "--device", "cpu"),
        *("--protein-model", protein_model, "--dna-model", dna_model, *more),
    ]


def table(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a result."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".prediction.lock"
    }
