"""Whether a sequence gets the same bytes whatever shares its batch, so that equal ones could be computed once.

    python benchmarks/repeats.py --output benchmarks/results/repeats_h100.json
    python benchmarks/repeats.py --tiny                # proves the script on any machine in seconds

The shape of ESM-2 650M with random weights, 20,000 proteins of which 30% repeat another. They are embedded as they
are, and each distinct one once; reports how many rows have other bytes, the largest difference, and what is saved. The
same for the ways to compute that this GPU has.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from gpu_extract import FULL, LETTERS, TINY
from gpu_layers import fasta_encoder

from nucpro.embedding.batches import default_tokens_per_batch
from nucpro.formats.fasta import Records
from nucpro.models import architectures
from nucpro.models.config import Esm2Config
from nucpro.models.esm2 import Esm2
from nucpro.models.kernels import Choice, Way

SHARE = 0.3


def sequences_of(count: int) -> list[bytes]:
    draw = random.Random(3)
    made: list[bytes] = []
    for _ in range(count):
        if made and draw.random() < SHARE:
            made.append(draw.choice(made))
        else:
            made.append(
                bytes(draw.choices(LETTERS, k=min(1_022, max(30, round(draw.lognormvariate(4.6, 0.4))))))
            )
    return made


def embedded(encoder, sequences: list[bytes]) -> tuple[np.ndarray, float]:
    records = Records(Path("random proteins"), [f"p{row}" for row in range(len(sequences))], sequences)
    began = time.perf_counter()
    return encoder.embed_checked(records).matrix, time.perf_counter() - began


def compare(encoder, sequences: list[bytes]) -> dict[str, float]:
    distinct, inverse = np.unique(np.array(sequences, object), return_inverse=True)
    embedded(encoder, sequences[: len(sequences) // 10])
    whole, seconds = embedded(encoder, sequences)
    once, fewer = embedded(encoder, list(distinct))
    different = (whole.view(np.uint32) != once[inverse].view(np.uint32)).any(axis=1)
    return {
        "sequences": len(sequences),
        "distinct": len(distinct),
        "rows_with_other_bytes": int(different.sum()),
        "largest_difference": float(np.abs(whole - once[inverse]).max()),
        "seconds": round(seconds, 3),
        "seconds_of_distinct": round(fewer, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    size = TINY if arguments.tiny else FULL
    device = torch.device("cpu" if arguments.tiny else "cuda")
    dtype = torch.float32 if arguments.tiny else torch.float16
    config = Esm2Config(
        33, size.width, size.layers, size.heads, 4 * size.width, 1e-5, 10_000.0, token_dropout=True
    )
    sequences = sequences_of(200 if arguments.tiny else 20_000)
    results = {}
    for way in [Way.PLAIN] if arguments.tiny else [Way.HOPPER, Way.CUBLAS, Way.PLAIN]:
        encoder = Esm2.drawn(config, device=device, dtype=dtype)
        with patch.object(architectures, "way_of", lambda *_, way=way: Choice(way)):
            architectures.use_kernels(encoder)
        budget = size.budget or default_tokens_per_batch(device)
        results[str(way)] = compare(fasta_encoder(encoder, budget), sequences)
        print(way, results[str(way)], flush=True)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    document = {"device": machine, "torch": torch.__version__, "share": SHARE, "results": results}
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
