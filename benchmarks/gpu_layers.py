"""What other layers and poolings cost beside the mean of the last layer, in one run on one GPU.

    python benchmarks/gpu_layers.py --output benchmarks/results/gpu_layers_h100.json
    python benchmarks/gpu_layers.py --tiny             # proves the script on any machine in seconds

The model has the shape of ESM-2 650M and random weights; sequences have 100 residues, and those of a proteome. Rounds
of what is compared take turns, and medians are reported, in sequences a second and as a share of the default's speed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from gpu_extract import FULL, TINY, batches_of, medians, prepared, workloads

from nucpro.embedding.batches import default_tokens_per_batch
from nucpro.models.architectures import use_kernels
from nucpro.models.config import MEAN_OF_LAST, POOLINGS, Esm2Config, Readout
from nucpro.models.esm2 import Esm2

WORKLOADS = ("100", "proteome, 30 to 1,024")


def readouts(layers: int) -> dict[str, Readout]:
    two_thirds = layers * 2 // 3
    return {
        "last layer, mean (the default)": MEAN_OF_LAST,
        f"layer {two_thirds} of {layers}, mean": Readout((two_thirds,)),
        f"layer {two_thirds} and the last, mean": Readout((two_thirds, -1)),
        "every layer, mean": Readout(tuple(range(layers + 1))),
        "last layer, " + ", ".join(POOLINGS): Readout((-1,), POOLINGS),
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
    encoder = Esm2.drawn(config, device=device, dtype=dtype)
    way = str(use_kernels(encoder))
    budget = size.budget or default_tokens_per_batch(device)
    results = {}
    for name in WORKLOADS:
        lengths = workloads(size.tokens)[name]
        batches = batches_of(prepared(lengths, budget), device)

        def run(readout: Readout, batches=batches) -> None:
            for tokens, batch in batches:
                encoder.read(tokens, batch, readout)

        runs = {
            what: (lambda readout=readout: run(readout)) for what, readout in readouts(size.layers).items()
        }
        with torch.inference_mode():
            times = medians(runs, size.rounds, device)
        default = times[next(iter(times))]
        results[name] = {
            what: {"sequences_per_second": len(lengths) / taken, "speed_by_default": default / taken}
            for what, taken in times.items()
        }
        for what, taken in times.items():
            print(
                f"{name}: {what}: {len(lengths) / taken:,.0f} sequences/s, {default / taken:.2f} of the default"
            )
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    document = {
        "device": machine,
        "torch": torch.__version__,
        "way": way,
        "tokens": budget,
        "results": results,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
