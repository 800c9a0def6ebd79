"""Compares nucpro with transformers on the published weights, layer by layer, and keeps the answers.

    python recipes/known_answers.py --output src/nucpro/inspection/known_answers.json [MODEL ...]

Needs the network, or folders of models, and ``pip install transformers``. Each ESM-2 is loaded twice, in float32 on
the CPU: by transformers and by nucpro. Hidden states after every layer and the pooled vectors must agree to 1e-4 of
their root mean square; then the vectors that transformers gave become the answers that ``nucpro doctor --models``
compares with. DNABERT-S has its own code in transformers' place, which is not run here: its reference is the float64
forward of the tests, written from the description of the architecture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("src", "tests", "demo")]

import random_mosaic_bert
from nucpro.embedding.encoder import load
from nucpro.embedding.identification import identify
from nucpro.formats.sequences import SequenceType
from nucpro.inspection.answers import COLUMNS, SEQUENCES
from nucpro.options import Options

PROTEIN_MODELS = [f"facebook/esm2_{size}_UR50D" for size in ("t6_8M", "t12_35M", "t30_150M", "t33_650M")]
MODELS = [*PROTEIN_MODELS, "Synthyra/FastESM2_650", "zhihan1996/DNABERT-S"]
ALLOWED = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=MODELS, help="hub ids or folders")
    arguments = parser.parse_args()
    kept = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in arguments.models:
        digest, answer = compared(name)
        kept[digest] = answer
        print(
            f"{name}: layers differ by at most {answer['largest_difference']:.1e} of their root mean square"
        )
        if answer["largest_difference"] > ALLOWED:
            raise SystemExit(f"{name}: more than {ALLOWED:g}; nothing was written")
    arguments.output.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def compared(name: str) -> tuple[str, dict[str, object]]:
    """Digest of the weights, and the answers of the reference with how far nucpro is from them."""
    kind = SequenceType.DNA if "dnabert" in name.lower() else SequenceType.PROTEIN
    model_options = {"dna_model": name} if kind is SequenceType.DNA else {"protein_model": name}
    options = Options(device="cpu", precision="fp32", **model_options)
    identified = identify(options, kind)
    encoder = load(identified, options)
    sequences = SEQUENCES[kind]
    encoded = encoder.tokenizer.encode([str(n) for n in range(len(sequences))], list(sequences), 1024)
    tokens, lengths = torch.tensor(encoded.tokens, dtype=torch.int32), encoded.lengths.tolist()
    if kind is SequenceType.DNA:
        reference, by = [random_mosaic_bert.reference(Path(name), tokens, lengths)], "a float64 forward"
        ours = [encoder.embedder.encoder(tokens, lengths)]
        span = slice(None)
    else:
        reference, by = (
            list(of_transformers(name, tokens, lengths)),
            f"transformers {transformers.__version__}, float32",
        )
        ours = list(of_nucpro(encoder.embedder.encoder, tokens, lengths))
        span = slice(1, -1)
    largest = max(difference(a, b) for a, b in zip(ours, reference, strict=True))
    vectors = torch.stack([part[span].mean(0) for part in reference[-1].split(lengths)]).double()
    rms = vectors.pow(2).mean(1).sqrt()
    return identified.recipe.made_by["weights_sha256"], {
        "id": identified.recipe.made_by["id"],
        "computed_by": by,
        "columns": [[round(value, 7) for value in row] for row in vectors[:, :COLUMNS].tolist()],
        "rms": [round(value, 7) for value in rms.tolist()],
        "layers_compared": len(ours),
        "largest_difference": float(f"{largest:.2e}"),
    }


def of_transformers(name: str, tokens: torch.Tensor, lengths: list[int]) -> Iterator[torch.Tensor]:
    """Hidden states ``[T, width]`` after each layer, the last one after the final norm."""
    model = transformers.EsmModel.from_pretrained(name, add_pooling_layer=False, dtype=torch.float32).eval()
    with torch.inference_mode():
        each = [
            model(part[None].long(), torch.ones_like(part[None]), output_hidden_states=True).hidden_states
            for part in tokens.split(lengths)
        ]
    for states in list(zip(*each, strict=True))[1:]:
        yield torch.cat([state[0] for state in states])


def of_nucpro(encoder: torch.nn.Module, tokens: torch.Tensor, lengths: list[int]) -> Iterator[torch.Tensor]:
    """The same of nucpro's encoder."""
    after: list[torch.Tensor] = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _, __, output: after.append(output.clone()))
    with torch.inference_mode():
        final = encoder(tokens, lengths)
    yield from after[:-1]
    yield final


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, in units of the root mean square of the expected values."""
    return float((actual.double() - expected.double()).abs().max() / expected.double().pow(2).mean().sqrt())


if __name__ == "__main__":
    main()
