"""Time of pre-flight and of a run with nothing to do, against the number of files.

    python benchmarks/preflight.py --json benchmarks/results/preflight.json

Full-size files: 200 of 10,000 records, both sides, checked for the first time and again. Small files: folders
of 1,000 to 100,000 files of one record, to see that the time grows in proportion. No model is loaded and no
GPU is used; DNABERT-S files are links to one file, since pre-flight looks at their directories only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "demo")]

import stand_ins
from nucpro.extraction.survey import read_only_survey
from nucpro.options import Options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--small", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--full", type=int, default=200)
    arguments = parser.parse_args()
    result: dict[str, object] = {
        "machine": {
            "cpu_cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
        }
    }
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder) / "full", arguments.full, 10_000)
        result["full_files"] = {"files": arguments.full, "records_each": 10_000, **timed(data, 10_000)}
    for files in arguments.small:
        with tempfile.TemporaryDirectory() as folder:
            data = make_data(Path(folder) / "small", files, 1)
            result[f"small_files_{files}"] = {"files": files, "records_each": 1, **timed(data, 1)}
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def timed(data: Path, size: int) -> dict[str, float]:
    """Seconds of discovery and pre-flight without the model: the first time, and again when nothing changed."""
    seconds = {}
    for name in ("first", "again"):
        started = time.perf_counter()
        with read_only_survey(Options(data, sequences_per_file=size)) as survey:
            survey.discover()
            problems = survey.inputs()
            assert not problems, problems
        seconds[f"seconds_{name}"] = round(time.perf_counter() - started, 2)
    print(data.name, seconds, flush=True)
    return seconds


def make_data(data: Path, files: int, size: int) -> Path:
    """A viral source of ``files`` full files of ``size`` records."""
    letters = random.Random(1)
    nucleotide, protein = data / "viral.1.1.identified_nucleotide", data / "viral.1.1.identified_protein"
    nucleotide.mkdir(parents=True)
    protein.mkdir()
    names = [f"NC_{number:06d}.1_chunk_{number % 97}F1" for number in range(size)]
    texts = {}
    for folder, alphabet, length in ((nucleotide, "ACGT", 300), (protein, "ACDEFGHIKLMNPQRSTVWY", 100)):
        texts[folder] = "".join(
            f">{name}\n{''.join(letters.choices(alphabet, k=length))}\n" for name in names
        )
    dna = data / "dna.pt"
    stand_ins.write_dna_stand_in(dna, names[:1])
    for folder, text in texts.items():
        with folder.with_suffix(folder.suffix + ".fa").open("w") as parent:
            parent.writelines(text for _ in range(files))
        for number in range(1, files + 1):
            (folder / f"output_{number}.fa").write_text(text)
    for number in range(1, files + 1):
        (nucleotide / f"output_{number}_DNABERT_S.pt").symlink_to(dna)
    return data


if __name__ == "__main__":
    main()
