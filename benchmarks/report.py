"""Time and memory of a report of 201 full files, its size, and how long a browser takes to open it.

    python benchmarks/report.py --json benchmarks/results/report.json

Vectors are random numbers around a centre of each file: equal sizes, no biology. Six files exist; the others
are links to them, so that the disk need not hold 16 GB, and reads come from memory (a cold disk adds its own time).
The page is opened in Chromium without a GPU, from the start of loading to the first picture of the map.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from browser import chromium, open_page
from nucpro.execution.workers import Workers
from nucpro.folder.paths import DataFolder, FilePair
from nucpro.formats import write_merged, write_vectors
from nucpro.formats.sequences import SequenceType
from nucpro.report.subject import FileState, Output, Subject
from nucpro.report.writing import write_report

WIDTH, DNA, PROTEIN = 2048, 768, 1280
CATEGORIES = ("viral", "bacteria", "fungi", "plant", "invertebrate", "vertebrate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--files", type=int, default=201)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--points", type=int, nargs="*", default=[20_000, 50_000])
    parser.add_argument("--keep", type=Path, help="copy the page with the most points here")
    arguments = parser.parse_args()
    result: dict[str, object] = {
        "machine": {
            "cpu_cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "load_at_start": os.getloadavg()[0],
        },
        "files": arguments.files,
        "records_each": arguments.records,
    }
    with tempfile.TemporaryDirectory() as folder, Workers() as workers:
        pairs = make_data(Path(folder), arguments.files, arguments.records)
        for points in arguments.points:
            result[f"points_{points}"] = measured(Path(folder), pairs, arguments.records, points, workers)
        if arguments.keep:
            shutil.copy(DataFolder(Path(folder)).report / "report.html", arguments.keep)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def measured(
    data: Path, pairs: list[FilePair], records: int, points: int, workers: Workers
) -> dict[str, float]:
    """Seconds to write the report and to open it, its megabytes, and the peak memory of this process so far."""
    states = [FileState(pair, records, Output.MADE) for pair in pairs]
    subject = Subject(DataFolder(data), states, "seeded", (), (), 0, ())
    started, cpu = time.perf_counter(), time.process_time()
    page = write_report(subject, workers, points)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    opened = []
    with chromium() as started_browser:
        for _ in range(5):
            with open_page(started_browser, page, wait_for_map=False) as view:
                opened.append(view.evaluate(_FIRST_DRAWN) / 1000)
    return {
        "seconds_to_write": round(seconds, 1),
        "cpu_seconds_beside_the_readers": round(cpu, 1),
        "page_megabytes": round(page.stat().st_size / 1e6, 2),
        "seconds_to_open_median_of_5": round(sorted(opened)[2], 2),
        "peak_memory_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


_FIRST_DRAWN = """() => new Promise((resolve) => {
  const look = () => document.getElementById("points").dataset.drawn
    ? resolve(performance.now()) : requestAnimationFrame(look);
  look();
})"""


def make_data(data: Path, files: int, records: int) -> list[FilePair]:
    """Files of a few sources, one of each written and the others linked to it."""
    pairs = []
    for place, category in enumerate(CATEGORIES):
        source = DataFolder(data).source_of(data / f"{category}.1.1.identified_nucleotide.fa")
        share = files // 2 if place == 0 else (files - files // 2) // 5 + (place == 1)
        found = [source.pair(number) for number in range(1, share + 1)]
        write_pair(found[0], records, place)
        for pair in found[1:]:
            for name in ("nucleotide_fasta", "protein_fasta", "dna_vectors", "protein_vectors", "merged"):
                getattr(pair, name).symlink_to(getattr(found[0], name))
        pairs += found
    return pairs


def write_pair(pair: FilePair, records: int, seed: int) -> None:
    """Write all five files of a pair."""
    for path in (pair.nucleotide_fasta, pair.protein_fasta, pair.merged):
        path.parent.mkdir(parents=True, exist_ok=True)
    letters, numbers = random.Random(seed), np.random.default_rng(seed)
    ids = [f"NC_{seed:02d}{number:06d}.1_chunk_{number % 97}F1" for number in range(records)]
    for path, alphabet, length in (
        (pair.nucleotide_fasta, "ACGT", 300),
        (pair.protein_fasta, "ACDEFGHIKLMNPQRSTVWY", 100),
    ):
        path.write_text("".join(f">{name}\n{''.join(letters.choices(alphabet, k=length))}\n" for name in ids))
    centre = numbers.standard_normal(WIDTH)
    mix = numbers.standard_normal((40, WIDTH))
    rows = 2 * centre + numbers.standard_normal((records, 40)) @ mix
    vectors = (rows + 0.5 * numbers.standard_normal((records, WIDTH))).astype(np.float32)
    write_vectors(pair.dna_vectors, ids, vectors[:, :DNA], None, SequenceType.DNA)
    write_vectors(pair.protein_vectors, ids, vectors[:, DNA:], None, SequenceType.PROTEIN)
    write_merged(pair.merged, ids, vectors, None, pair.label)


if __name__ == "__main__":
    main()
