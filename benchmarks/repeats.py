"""What it saves to compute equal sequences of a file once, what it costs, and whether bytes stay the same.

    python benchmarks/repeats.py --output benchmarks/results/repeats_h100.json
    python benchmarks/repeats.py --tiny                # proves the script on any machine in seconds

The shape of ESM-2 650M with random weights, 20,000 proteins of which none, 1% or 30% repeat another. They are embedded
as they are, and each distinct one once, in turns; reports how many rows have other bytes, the largest difference, and
medians. ``nucpro`` computes repeats once by the Hopper product alone.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
from gpu_extract import FULL, LETTERS, TINY, device_here, drawn, hardware, parser_of, write
from gpu_layers import fasta_encoder

from nucpro.embedding.batches import default_tokens_per_batch
from nucpro.embedding.encoder import FastaEncoder
from nucpro.formats.fasta import Records
from nucpro.models import architectures
from nucpro.models.kernels import Choice, Way

SHARES = (0.0, 0.01, 0.3)
ROUNDS = 3


def sequences_of(count: int, share: float) -> list[bytes]:
    draw = random.Random(3)
    made: list[bytes] = []
    for _ in range(count):
        if made and draw.random() < share:
            made.append(draw.choice(made))
        else:
            made.append(
                bytes(draw.choices(LETTERS, k=min(1_022, max(30, round(draw.lognormvariate(4.6, 0.4))))))
            )
    return made


def embedded(encoder: FastaEncoder, sequences: list[bytes]) -> tuple[np.ndarray, float]:
    records = Records(Path("random proteins"), [f"p{row}" for row in range(len(sequences))], sequences)
    began = time.perf_counter()
    return encoder.embed_checked(records).matrix, time.perf_counter() - began


def compare(encoder: FastaEncoder, share: float, count: int) -> dict[str, float]:
    """The same records by an encoder that computes equal ones once, and by one that does not; in turns."""
    sequences = sequences_of(count, share)
    once = FastaEncoder(encoder.embedder, encoder.tokenizer, encoder.recipe, repeats_once=True)
    embedded(encoder, sequences[: count // 10])
    runs = [(embedded(encoder, sequences), embedded(once, sequences)) for _ in range(ROUNDS)]
    (whole, _), (folded, _) = runs[0]
    different = (whole.view(np.uint32) != folded.view(np.uint32)).any(axis=1)
    seconds = [statistics.median(run[place][1] for run in runs) for place in (0, 1)]
    return {
        "sequences": count,
        "distinct": len(set(sequences)),
        "rows_with_other_bytes": int(different.sum()),
        "largest_difference": float(np.abs(whole - folded).max()),
        "seconds": round(seconds[0], 4),
        "seconds_once": round(seconds[1], 4),
        "ratio": round(seconds[1] / seconds[0], 4),
    }


def main() -> None:
    arguments, device = parser_of(__doc__).parse_args(), device_here()
    size = TINY if arguments.tiny else FULL
    count = 200 if arguments.tiny else 20_000
    results = {}
    for way in [Way.PLAIN] if arguments.tiny else [Way.HOPPER, Way.CUBLAS]:
        encoder = drawn(size, device)
        with patch.object(architectures, "way_of", lambda *_, way=way: Choice(way)):
            architectures.use_kernels(encoder)
        budget = size.budget or default_tokens_per_batch(device)
        fasta = fasta_encoder(encoder, budget)
        results[way.name] = {str(share): compare(fasta, share, count) for share in SHARES}
        print(way.name, results[way.name], flush=True)
    write({**hardware(device), "results": results}, arguments.output)


if __name__ == "__main__":
    main()
