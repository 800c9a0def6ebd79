"""Fuzz every target by coverage for a share of the given time: ``python tests/fuzz/run.py --seconds 2700``.

Atheris (libFuzzer) counts which branches of nucpro an input reaches, keeps those that reach new ones, and changes them
further. Each target runs in a process of its own under a limit of memory, so that one which takes too much or ends the
process is a find too. What was kept lies in ``build/fuzz/TARGET``, and goes on growing in the next run; the input of a
find lies beside it, as ``TARGET-crash-…``.
"""

from __future__ import annotations

import argparse
import logging
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ROOT / "build" / "fuzz"
MEMORY = 1 << 30
"""Bytes that a target may take above what its process has at the start."""
LONGEST_INPUT = 1 << 16
SLOWEST = 20
"""Seconds after which an input is a find."""


def fuzz(name: str, seconds: float, seed: int) -> None:
    """Run one target in this process for so long, which ends the process."""
    import atheris

    sys.path[:0] = [str(ROOT / "tests")]
    corpus = INPUTS / name.replace(" ", "_")
    corpus.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=INPUTS))
    logging.disable()
    with atheris.instrument_imports(include=["nucpro"]):
        from fuzz.targets import TARGETS

        target = TARGETS[name]
        for number, data in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(data)
            # What the target imports when it runs is instrumented too.
            target.check(data, folder)
    words = corpus.with_suffix(".words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if len(word) <= 64))
    _limit_memory()
    options = {
        "artifact_prefix": f"{corpus}-", "dict": words, "max_len": LONGEST_INPUT, "max_total_time": round(seconds),
        "print_final_stats": 1, "rss_limit_mb": 0, "seed": seed + 1, "timeout": SLOWEST, "verbosity": 0,
    }  # fmt: skip
    atheris.Setup(
        [sys.argv[0], str(corpus), *(f"-{key}={value}" for key, value in options.items())],
        lambda data: target.check(data, folder),
    )
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run all targets one after the other; the exit code is the number of those with a find."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2700, help="time of all targets together")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes")
    parser.add_argument("--target", help="run this one only, in this process")
    arguments = parser.parse_args()
    INPUTS.mkdir(parents=True, exist_ok=True)
    if arguments.target:
        fuzz(arguments.target, arguments.seconds, arguments.seed)
    sys.path[:0] = [str(ROOT / "tests")]
    from fuzz.targets import TARGETS

    share, finds = arguments.seconds / len(TARGETS), 0
    for name in TARGETS:
        command = [sys.executable, __file__, "--target", name]
        command += ["--seconds", str(share), "--seed", str(arguments.seed)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        told = dict(line[6:].split(":", 1) for line in done.stderr.splitlines() if line.startswith("stat::"))
        count, peak = (told.get(key, "?").strip() for key in ("number_of_executed_units", "peak_rss_mb"))
        if done.returncode:
            finds += 1
            _say(done.stdout + done.stderr)
        found = f"exit code {done.returncode}; its input lies in {INPUTS}" if done.returncode else "no find"
        _say(f"{name}: {count} inputs in {share:.0f} s, peak {peak} MiB, {found}")
    return finds


if __name__ == "__main__":
    sys.exit(main())
