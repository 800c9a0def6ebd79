"""bfloat16 products on a CPU: their speed beside float32, transformers and esm-cpp, and the neighbours that they keep.

    python benchmarks/cpu_bf16.py --real-data FOLDER --output benchmarks/results/cpu_bf16.json [--threads 2 8]
    OMP_NUM_THREADS=8 python benchmarks/cpu_bf16.py --threads 8 …    # esm-cpp has its threads from there
    python benchmarks/cpu_bf16.py --tiny               # proves the script on any machine in a minute

Speed: six layers of the width of ESM-2 650M with random weights, sequences of 100 and 300 residues, every way on the
same threads, rounds in turns, medians of wall time. transformers runs in float32 at several budgets of padded tokens,
and the best one counts. esm-cpp (8-bit integers) stands beside them where it is installed. Accuracy: FOLDER holds the
published 8M weights (``esm2_8m``) and annotated genomes (``refseq_mini``), whose proteins are cut into windows of 100
residues; vectors are compared with those in float32. ``oneDNN rounds`` is a float32 model whose products oneDNN is
allowed to round to bfloat16 inside (``torch.backends.mkldnn.matmul.fp32_precision``), so that results are not rounded.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import transformers
from cpu_extract import careful_batches, transformers_vectors
from eight_bit import agreement, windows
from gpu_extract import Size, parser_of, random_model, show, write
from safetensors.torch import save_file

from nucpro.embedding.batches import Embedder, Prepared, prepare
from nucpro.embedding.device import multiplies_bf16
from nucpro.models.esm2 import Esm2, load_esm2
from nucpro.models.tokens import ResidueTokenizer
from nucpro.models.weights import locate

CPU = torch.device("cpu")
SHAPE = Size(1280, 6, 20, 0, 0, 5, (1_024, 4_096))
TINY = Size(64, 2, 4, 0, 0, 1, (512,))
FP32, BF16, ROUNDS = "fp32", "bf16 products", "fp32, oneDNN rounds to bf16"
STEP, TOKENS, CALIBRATION = 10, 4_096, 200
PEER = "esm-cpp, int8"
Run = Callable[[], object]


# ---------------------------------------------------------------------------------------------- our ways


@contextmanager
def rounding(*, allowed: bool) -> Iterator[None]:
    """Let oneDNN multiply float32 matrices in bfloat16, for a while."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if allowed else before
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def ways_of(make: Callable[[torch.dtype], Esm2], work: Prepared) -> dict[str, Callable[[], np.ndarray]]:
    exact, rounded = Embedder(make(torch.float32)), Embedder(make(torch.bfloat16))

    def inside() -> np.ndarray:
        with rounding(allowed=True):
            return exact.submit(work).result()

    return {
        FP32: lambda: exact.submit(work).result(),
        BF16: lambda: rounded.submit(work).result(),
        ROUNDS: inside,
    }


def prepared(sequences: Sequence[bytes]) -> Prepared:
    names = [str(row) for row in range(len(sequences))]
    return prepare(names, sequences, ResidueTokenizer(), tokens_per_batch=2_048)


# ---------------------------------------------------------------------------------------------- the peer


def peer_model(backbone: torch.nn.Module, sequences: Sequence[bytes]):
    """esm-cpp with 8-bit products, calibrated on some of the sequences; it wants a head, which is random here."""
    import esm_cpp

    whole = transformers.EsmForMaskedLM(backbone.config)
    whole.esm.load_state_dict(backbone.state_dict(), strict=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors")
        save_file(peer_tensors(whole), str(file))
        model = esm_cpp.Model.load_from_safetensors(str(file))
    observer = esm_cpp.ActivationObserver()
    for ids in ids_of(sequences[:CALIBRATION]):
        model.forward_with_observer(ids, np.ones_like(ids), observer)
    model.apply_smoothquant(observer.percentile(99.9), 0.5)
    model.quantize_weights()
    return model


def peer_tensors(whole: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights by the names of older checkpoints, which hold the rotary frequencies of every layer."""
    tensors = {name: tensor.clone().contiguous() for name, tensor in whole.state_dict().items()}
    config = whole.config
    half = torch.arange(0, config.hidden_size // config.num_attention_heads, 2)
    frequencies = 10_000.0 ** -(half / (2 * len(half)))
    for layer in range(config.num_hidden_layers):
        name = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        tensors[name] = frequencies.clone()
    return tensors


def ids_of(sequences: Sequence[bytes]) -> list[np.ndarray]:
    rows = ResidueTokenizer().encode([str(n) for n in range(len(sequences))], sequences, 1_024)
    return [part.astype(np.int32) for part in np.split(rows.tokens, np.cumsum(rows.lengths)[:-1])]


def peer_vectors(model, sequences: Sequence[bytes]) -> torch.Tensor:
    """Means over residues of its last hidden states, which it gives for one sequence a call."""
    means = [model.forward_with_hidden_states(ids)[1][-1][1:-1].mean(0) for ids in ids_of(sequences)]
    return torch.from_numpy(np.stack(means))


def peer_run(model, sequences: Sequence[bytes]) -> Run:
    ids = ids_of(sequences)
    return lambda: model.forward_scheduled(ids)


# ---------------------------------------------------------------------------------------------- measurements


def medians(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


@torch.inference_mode()
def speed(size: Size, threads: int, residues: int) -> dict[str, float | str]:
    torch.set_num_threads(threads)
    backbone = random_model(size, CPU)
    draw = np.random.default_rng(0)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)
    count = max(2, (TOKENS if size is SHAPE else 64) // residues)
    sequences = [bytes(draw.choice(letters, residues)) for _ in range(count)]
    work = prepared(sequences)
    runs: dict[str, Run] = dict(ways_of(lambda dtype: Esm2.from_huggingface(backbone, dtype=dtype), work))
    rows = list(work.token_ids.long().split(work.lengths.tolist()))
    for budget in size.peer_tokens:
        batches = careful_batches(rows, budget)
        runs[f"transformers, {budget} tokens"] = lambda batches=batches: transformers_vectors(
            backbone, batches
        )
    peer, failed = tried(lambda: peer_model(backbone, sequences))
    if peer is not None:
        runs[PEER] = peer_run(peer, sequences)
    times = medians(runs, size.rounds)
    best = min(taken for name, taken in times.items() if name.startswith("transformers"))
    return {
        **{f"{name}, sequences/s": count / taken for name, taken in times.items()},
        **{
            f"{name}, times transformers": best / times[name]
            for name in (FP32, BF16, ROUNDS, PEER)
            if name in times
        },
        "bf16 beside fp32": times[FP32] / times[BF16],
        PEER: failed or "runs",
    }


@torch.inference_mode()
def accuracy(folder: Path, threads: int, *, few: bool) -> dict[str, object]:
    torch.set_num_threads(threads)
    files = locate(str(folder / "esm2_8m"))
    sequences = [one.encode() for one in windows(folder / "refseq_mini", STEP)][: 100 if few else None]
    ways = ways_of(lambda dtype: load_esm2(files, device=CPU, dtype=dtype), prepared(sequences))
    vectors = {name: torch.from_numpy(run()) for name, run in ways.items()}
    truth = vectors.pop(FP32)
    report: dict[str, object] = {"sequences": len(sequences)}
    report |= {name: agreement(made, truth) for name, made in vectors.items()}
    backbone = transformers.EsmModel.from_pretrained(folder / "esm2_8m", add_pooling_layer=False)
    made, failed = tried(lambda: peer_vectors(peer_model(backbone, sequences), sequences))
    return report | {PEER: failed if made is None else agreement(made, truth)}


def tried(run: Callable[[], object]) -> tuple[object, str]:
    """What the peer gives, or why not: it may not be installed, and must not cost the other figures."""
    try:
        return run(), ""
    except Exception as error:  # noqa: BLE001
        return None, f"{type(error).__name__}: {error}"[:300]


def processor() -> dict[str, object]:
    described = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    facts = dict(line.split(":", 1) for line in described.splitlines() if ":" in line)
    units = {"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx2"} & set(
        facts.get("Flags", "").split()
    )
    return {
        "processor": facts.get("Model name", "unknown").strip(),
        "processors": facts.get("CPU(s)", "").strip(),
        "units": sorted(units),
        "multiplies_bf16": multiplies_bf16(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--real-data", type=Path, help="folder with esm2_8m and refseq_mini")
    parser.add_argument("--threads", type=int, nargs="*", default=[torch.get_num_threads()])
    arguments = parser.parse_args()
    size, lengths = (TINY, (30,)) if arguments.tiny else (SHAPE, (100, 300))
    results: dict[str, object] = {"machine": processor()}

    def keep(title: str, figures: dict[str, object]) -> None:
        results[title] = figures
        show(title, figures)
        write(results, arguments.output)

    for threads in arguments.threads:
        for residues in lengths:
            keep(f"{residues} residues, {threads} threads", speed(size, threads, residues))
    if arguments.real_data:
        threads = max(arguments.threads, default=torch.get_num_threads())
        keep("accuracy", accuracy(arguments.real_data, threads, few=arguments.tiny))


if __name__ == "__main__":
    main()
