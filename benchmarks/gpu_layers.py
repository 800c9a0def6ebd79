"""What other layers, poolings and vectors of residues cost beside the mean of the last layer, in one run on one GPU.

    python benchmarks/gpu_layers.py --output benchmarks/results/gpu_layers_h100.json
    python benchmarks/gpu_layers.py --tiny             # proves the script on any machine in seconds

The model has the shape of ESM-2 650M and random weights; sequences have 100 residues, and those of a proteome. Rounds
of what is compared take turns, and medians are reported, in sequences a second and as a share of the default's speed.

Layers and poolings are timed on the device alone. Vectors of residues are as much work for host and disk, so they are
timed with all of it, as ``nucpro embed`` does it part by part, beside the default with all of it, and beside a loop
that only writes as many bytes. They go to a temporary folder in ``--folder``, which needs 8 GB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gpu_extract import (
    FULL,
    LETTERS,
    TINY,
    Run,
    Size,
    batches_of,
    device_here,
    drawn,
    hardware,
    medians,
    parser_of,
    prepared,
    workloads,
    write,
)

from nucpro.embedding.batches import Embedder, default_tokens_per_batch
from nucpro.embedding.encoder import FastaEncoder
from nucpro.embedding.identification import WeightsIdentity, describe_model, recipe_for
from nucpro.execution.engine import in_order
from nucpro.formats.fasta import Records
from nucpro.formats.sequences import SequenceType
from nucpro.models.architectures import use_kernels
from nucpro.models.config import MEAN_OF_LAST, POOLINGS, Readout
from nucpro.models.esm2 import Esm2
from nucpro.models.tokens import ResidueTokenizer
from nucpro.vectors.inputs import Part, default_part_size, parts_of
from nucpro.vectors.outputs import write_tensor
from nucpro.vectors.residues import write_shard

WORKLOADS = ("100", "proteome, 30 to 1,024")
JOB_TOKENS = 3_000_000
JOB_ROUNDS = 2


def readouts(layers: int) -> dict[str, Readout]:
    two_thirds = layers * 2 // 3
    return {
        "last layer, mean (the default)": MEAN_OF_LAST,
        f"layer {two_thirds} of {layers}, mean": Readout((two_thirds,)),
        f"layer {two_thirds} and the last, mean": Readout((two_thirds, -1)),
        "every layer, mean": Readout(tuple(range(layers + 1))),
        "last layer, " + ", ".join(POOLINGS): Readout((-1,), POOLINGS),
    }


# ---------------------------------------------------------------------------------------------- device alone


@torch.inference_mode()
def measure_readouts(encoder: Esm2, lengths: list[int], size: Size, budget: int) -> dict[str, dict]:
    batches = batches_of(prepared(lengths, budget), encoder.device)

    def run(readout: Readout) -> None:
        for tokens, batch in batches:
            encoder.read(tokens, batch, readout)

    kinds = readouts(size.layers)
    runs = {what: (lambda readout=readout: run(readout)) for what, readout in kinds.items()}
    return rates(medians(runs, size.rounds, encoder.device), len(lengths))


# ---------------------------------------------------------------------------------------------- with host and disk


def fasta_encoder(encoder: Esm2, budget: int) -> FastaEncoder:
    tokens = ResidueTokenizer()
    made_by = describe_model(WeightsIdentity("random weights", None, "0" * 64), encoder.config, tokens)
    precision = {torch.float16: "fp16", torch.float32: "fp32"}[encoder.dtype]
    recipe = recipe_for(SequenceType.PROTEIN, made_by, precision, encoder.config.pooled_span)
    return FastaEncoder(Embedder(encoder, budget), tokens, recipe)


def records_of(lengths: list[int]) -> Records:
    draw = np.random.default_rng(2)
    residues = np.frombuffer(LETTERS, np.uint8)
    sequences = [draw.choice(residues, length).tobytes() for length in lengths]
    return Records(Path("random proteins"), [f"p{row}" for row in range(len(lengths))], sequences)


def job(work: Callable[[Part], object], records: Records, device: str, residue_bytes: int) -> Run:
    """All parts of the records, a few at a time, as the local engine works."""
    size = default_part_size(device, residue_bytes)

    def run() -> None:
        parts = parts_of(records.path, zip(records.ids, records.sequences, strict=True), size)
        for _ in in_order(parts, work):
            pass

    return run


def measure_jobs(encoder: FastaEncoder, lengths: list[int], folder: Path) -> dict[str, dict]:
    device = encoder.embedder.encoder.device
    records = records_of(lengths)
    by_residue = encoder.reading(Readout(per_residue="float16"))
    row = 2 * encoder.recipe.width

    def only_written(part: Part) -> None:
        write_tensor(folder / f"{part.number}.safetensors", np.ones((part.size, row // 2), np.float16), {})

    written, bare = "whole job, per residue, written to disk", "the same bytes, only written"
    jobs = {
        "whole job, last layer, mean (the default)": (lambda part: encoder.embed_checked(part.records), 0),
        "whole job, per residue, not written": (lambda part: by_residue.embed_checked(part.records), row),
        written: (lambda part: write_shard(folder, by_residue, part), row),
        bare: (only_written, row),
    }
    runs = {what: job(work, records, device.type, size) for what, (work, size) in jobs.items()}
    times = medians(runs, JOB_ROUNDS, torch.device("cpu"))
    found = rates(times, len(lengths))
    for what in (written, bare):
        found[what]["megabytes_per_second"] = sum(lengths) * row / times[what] / 1e6
    return found


# ---------------------------------------------------------------------------------------------- results


def rates(times: dict[str, float], sequences: int) -> dict[str, dict]:
    """Sequences a second, and speed beside the first, which is the default."""
    default = times[next(iter(times))]
    return {
        what: {"sequences_per_second": sequences / taken, "speed_by_default": default / taken}
        for what, taken in times.items()
    }


def say(workload: str, found: dict[str, dict]) -> None:
    for what, one in found.items():
        written = f", {one['megabytes_per_second']:,.0f} MB/s" if "megabytes_per_second" in one else ""
        print(
            f"{workload}: {what}: {one['sequences_per_second']:,.0f} sequences/s, "
            f"{one['speed_by_default']:.2f} of the default{written}",
            flush=True,
        )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--folder", type=Path, help="where the temporary folder for vectors is made")
    arguments, device = parser.parse_args(), device_here()
    size = TINY if arguments.tiny else FULL
    encoder = drawn(size, device)
    way = str(use_kernels(encoder))
    budget = size.budget or default_tokens_per_batch(device)
    job_tokens = 10 * size.tokens if arguments.tiny else JOB_TOKENS
    results = {}
    for name in WORKLOADS:
        found = measure_readouts(encoder, workloads(size.tokens)[name], size, budget)
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            lengths = workloads(job_tokens)[name]
            found |= measure_jobs(fasta_encoder(encoder, budget), lengths, Path(folder))
        results[name] = found
        say(name, found)
    write({**hardware(device), "way": way, "tokens": budget, "results": results}, arguments.output)


if __name__ == "__main__":
    main()
