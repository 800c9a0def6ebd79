"""The speed tables of README.md and docs/speed.md, made from the committed results.

    python benchmarks/speed_table.py

Reads ``benchmarks/results/*.json`` and rewrites what stands between the markers of both pages. Run it after a
new result is committed; a test compares pages and results.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
SPEED_PAGE = ROOT / "docs" / "speed.md"


def main() -> None:
    for page in (README, SPEED_PAGE):
        page.write_text(with_tables(page, RESULTS))


def with_tables(page: Path, results: Path) -> str:
    """The text of a page with the tables that the results make."""
    text = with_table(page.read_text(), "speed", speed_section(results))
    text = with_table(text, "cards", card_section(results))
    return text if page == README else with_table(text, "eight bits", eight_bit_section(results))


def with_table(text: str, name: str, section: str) -> str:
    """A page's text with another section between the markers of that name."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opening, rest = text.partition(first)
    _, closing, after = rest.partition(last)
    if not (opening and closing):
        raise SystemExit(f"a page needs {first} and after it {last}; put them where the table belongs")
    return f"{before}{first}\n{section}{last}{after}"


def speed_section(results: Path) -> str:
    """Introduction and table, as Markdown."""
    encoder, layers, job, many, dna, training, prediction, cpu = (
        json.loads((results / f"{name}.json").read_text())
        for name in (
            "gpu_extract_h100",
            "gpu_layers_h100",
            "end_to_end_h100",
            "ray_gpus_h200",
            "gpu_dna_h100",
            "train_h100",
            "predict_h100",
            "cpu_extract",
        )
    )
    rows = [
        *encoder_rows(encoder),
        *readout_rows(layers),
        *job_rows(job),
        *many_gpu_rows(many),
        *dna_rows(dna),
    ]
    rows += [*training_rows(training), *prediction_rows(prediction), *cpu_rows(cpu)]
    table = ["| task | throughput or time | comparison |", "|---|---|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*introduction(encoder["hardware"], job["machine"], cpu), "", *table]) + "\n"


def introduction(gpu: dict, job: dict, cpu: dict) -> list[str]:
    here = cpu["hardware"]
    return [
        f"One {gpu['device']} with {job['cpu_cores']} CPU cores, torch {gpu['torch']}, fp16; random weights of real",
        f"shapes (ESM-2 650M, DNABERT-S). CPU: {here['processor']}, {here['threads']} threads, shared with other work;",
        f"ESM-2 8M in fp32, {cpu['size']['weights']} weights. transformers {gpu['transformers']} on the GPU and "
        f"{here['transformers']} on the CPU.",
        "Programs, results and notes on what did not help are in `benchmarks/`.",
    ]


def encoder_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = []
    for residues in ("100", "166"):
        speed = result["speed"][residues]
        rows.append(
            (
                f"GPU, proteins of {residues} residues",
                f"{speed['sequences_per_s']:,.0f} sequences/s",
                f"{speed['times_transformers_best']:.1f} times transformers at its best batch; "
                f"{speed['share_of_bare_products']:.0%} of the speed of bare matrix products",
            )
        )
    return rows


def readout_rows(result: dict) -> list[tuple[str, str, str]]:
    """Other layers and poolings beside the default of their run, and vectors of residues with their disk."""
    found = result["results"]["100"]
    rows = []
    for what, one in found.items():
        if what.endswith(("(the default)", "not written", "only written")):
            continue
        comparison = f"{one['speed_by_default']:.2f} times the rate of the mean of the last layer"
        if (written := one.get("megabytes_per_second")) is not None:
            comparison += f"; {written:,.0f} MB/s"
        rows.append(
            (
                f"GPU, proteins of 100 residues, {what}",
                f"{one['sequences_per_second']:,.0f} sequences/s",
                comparison,
            )
        )
    return rows


def job_rows(result: dict) -> list[tuple[str, str, str]]:
    run, first = result["run"], result["first_start"]
    per_file = result["sequences_per_file"]
    return [
        (
            f"`nucpro extract`, {result['files']} files of {per_file:,}",
            f"{per_file / run['seconds_a_file_after_the_first']:,.0f} sequences/s while extracting",
            f"GPU busy {result['gpu']['busy_share']:.1%} of a {result['gpu']['span_seconds']:.0f} s profile; "
            f"host memory {run['peak_host_gib']:.1f} GiB",
        ),
        ("the same, from start to validated files", f"{run['seconds']:.0f} s", start_up(run, first)),
    ]


def start_up(run: dict, first: dict) -> str:
    """Seconds until the model is ready: the first file is done one file's time later."""
    ready = run["first_file_done"] - run["seconds_a_file_after_the_first"]
    return (
        f"model ready after about {ready:.0f} s; first file done after {run['first_file_done']:.0f} s, "
        f"{first['first_file_done']:.0f} s on first use, while kernels compile"
    )


def dna_rows(result: dict) -> list[tuple[str, str, str]]:
    found = result["conclusions"]
    return [
        (
            "GPU, DNA of 300 bases",
            f"{found['sequences_per_s']:,.0f} sequences/s",
            f"{found['times the loop as the product computes']:.0f} times one sequence per call, "
            f"{found['times the loop as published, float32']:.0f} times the published model, one per call (fp32)",
        )
    ]


def many_gpu_rows(result: dict) -> list[tuple[str, str, str]]:
    card = result["machine"]["gpu"].removeprefix("NVIDIA ")
    return [
        (
            f"the same on {name.removeprefix('ray_')} {card} (`--engine ray`)",
            f"{result['sequences_per_file'] / run['seconds_a_file_after_the_first']:,.0f} sequences/s",
            f"{result['times_the_rate_of_one_gpu'][name]:.2f} times one GPU; byte-identical",
        )
        for name, run in result["runs"].items()
        if name != "local"
    ]


def training_rows(result: dict) -> list[tuple[str, str, str]]:
    ours, peer = (result[name]["rows_per_s"] for name in ("ours", "peer_waiting_for_each_loss"))
    return [
        (
            "`nucpro train`, batches of 32",
            f"{ours:,.0f} rows/s",
            f"{ours / peer:.0f} times a loop over a DataLoader with 12 workers",
        )
    ]


def prediction_rows(result: dict) -> list[tuple[str, str, str]]:
    share = result["conclusions"]["share of the encoders' rate"]
    return [
        (
            "`nucpro predict`",
            f"{result['prediction']['frames_per_second']:,.0f} reading frames/s",
            f"{share:.0%} of the throughput of its two encoders alone",
        )
    ]


def cpu_rows(result: dict) -> list[tuple[str, str, str]]:
    rows = []
    budgets = result["size"]["peer_tokens"]
    for name, speed in result["speed"].items():
        wall, cpu = (speed[f"times_transformers_best, {clock}"] for clock in ("wall_s", "cpu_s"))
        plain = speed["times_plain_script, cpu_s"]
        rows.append(
            (
                f"CPU, {speed['sequences']} proteins, residues: {name}",
                f"{speed['sequences_per_s']:,.1f} sequences/s",
                f"transformers sorted, best of {min(budgets):,} to {max(budgets):,} tokens per batch: {wall:.2f} times "
                f"in wall time, {cpu:.2f} in CPU time; unsorted batches of 8: {plain:.2f} in CPU time",
            )
        )
    return rows


def card_section(results: Path) -> str:
    """Which cards were measured, which the kernels are only compiled for, and what each runs, as Markdown."""
    cards = json.loads((results / "cards.json").read_text())
    ways = json.loads((results / "gpu_ways_h100.json").read_text())
    cpu = json.loads((results / "cpu_bf16_xeon_amx.json").read_text())
    table = [
        "| cards | compute capability | status | implementation | ESM-2 650M, 100 residues |",
        "|---|---|---|---|---|",
    ]
    for card in cards:
        runs, rate = "kernels around cuBLAS products", ""
        if card["capability"] == "9.0":
            runs = "kernels and the Hopper product"
        elif card["capability"].startswith("below"):
            runs = "plain torch"
        if card["state"] == "measured":
            rate = f"{ways['ESM-2 650M']['100 residues']['hopper, sequences/s']:,.0f} sequences/s (H100)"
        table.append(f"| {card['cards']} | {card['capability']} | {card['state']} | {runs} | {rate} |")
    amx = cpu["100 residues, 16 threads"]["bf16 beside fp32"]
    table.append(
        f"| CPU with AMX | | measured | plain torch; `--precision bf16` | bf16 {amx:.1f} times fp32 (16 threads) |"
    )
    table.append("| CPU with AVX512-BF16 (Zen 4) | | should run | the same | |")
    return "\n".join([*ways_in_words(ways), "", *table]) + "\n"


def ways_in_words(ways: dict) -> list[str]:
    """What the way of most cards costs, measured on a card that can run both."""
    esm, dna = ways["ESM-2 650M"], ways["DNABERT-S"]["300 bases (63 tokens)"]
    short, long = esm["100 residues"], esm["166 residues"]
    return [
        f"On one {ways['hardware']['device']}, all variants in one run: kernels around cuBLAS products reach "
        f"{short['cublas, sequences/s']:,.0f} and {long['cublas, sequences/s']:,.0f}",
        f"sequences/s at 100 and 166 residues, {short['cublas beside plain']:.2f} and "
        f"{long['cublas beside plain']:.2f} times plain torch and {short['cublas beside hopper']:.0%} and "
        f"{long['cublas beside hopper']:.0%} of the Hopper product;",
        f"DNABERT-S {dna['cublas, sequences/s']:,.0f} sequences/s of 300 bases, {dna['cublas beside plain']:.2f} times "
        "plain torch. *Measured*: run and timed; *compiled*:",
        "a test compiles the kernels for this card and checks that they fit into its shared memory;",
        "*should run*: not tested, no known problem.",
    ]


def eight_bit_section(results: Path) -> str:
    """Half precision and the nearest of each kind of eight-bit products, on published weights, as Markdown."""
    found = json.loads((results / "eight_bit_h100.json").read_text())["published 8M weights"]
    kinds = {"fp16": "torch.float16", "bf16": "torch.bfloat16"}
    for kind in ("fp8", "int8"):
        of_kind = [name for name in found if name.startswith(kind)]
        nearest = max(of_kind, key=lambda name: found[name]["nearest_neighbour_agreement"])
        which = nearest.removeprefix(f"{kind}: ")
        kinds |= {f"{kind}, all products": f"{kind}: all", f"{kind}, best subset: {which}": nearest}
    table = ["| products in | nearest neighbours kept | mean cosine | minimum cosine |", "|---|---|---|---|"]
    table += [
        f"| {words} | {found[name]['nearest_neighbour_agreement']:.1%} | {found[name]['cosine_mean']:.5f} "
        f"| {found[name]['cosine_worst']:.4f} |"
        for words, name in kinds.items()
        if name in found
    ]
    return "\n".join(["", *table]) + "\n"


if __name__ == "__main__":
    main()
