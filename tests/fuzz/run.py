"""Fuzz every target for a share of the given CPU time: ``python tests/fuzz/run.py --seconds 600``.

Each target runs in a process of its own under a limit of memory, so that one which takes too much or ends
the process is a find too: its last input lies in ``build/fuzz``.
"""

from __future__ import annotations

import argparse
import logging
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ROOT / "build" / "fuzz"
MEMORY = 1 << 30
"""Bytes that a target may take above what its process has at the start."""
EXAMPLES = 500
"""Inputs of one round; every round starts from another seed."""


def fuzz(name: str, seconds: float, seed: int) -> int:
    """Run one target in this process for so long, and give the number of inputs."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import seed as seeded

    sys.path[:0] = [str(ROOT / "tests")]
    from fuzz.targets import TARGETS

    target, last, count = TARGETS[name], INPUTS / name.replace(" ", "_"), 0

    with tempfile.TemporaryDirectory() as folder:

        @given(target.inputs)
        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        def check(data: bytes) -> None:
            nonlocal count
            count += 1
            last.write_bytes(data)
            target.check(data, Path(folder))

        logging.disable()
        _limit_memory()
        start = time.process_time()
        while time.process_time() - start < seconds:
            seeded(seed)(check)()
            seed += 1
    return count


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
    parser.add_argument("--seconds", type=float, default=600, help="CPU time of all targets together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round of each target")
    parser.add_argument("--target", help="run this one only, in this process")
    arguments = parser.parse_args()
    INPUTS.mkdir(parents=True, exist_ok=True)
    if arguments.target:
        start = time.process_time()
        count = fuzz(arguments.target, arguments.seconds, arguments.seed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        used = time.process_time() - start
        _say(f"{arguments.target}: {count} inputs in {used:.0f} s of CPU, peak {peak} MiB, no find")
        return 0
    sys.path[:0] = [str(ROOT / "tests")]
    from fuzz.targets import TARGETS

    share, finds = arguments.seconds / len(TARGETS), 0
    for name in TARGETS:
        command = [sys.executable, __file__, "--target", name]
        done = subprocess.run([*command, "--seconds", str(share), "--seed", str(arguments.seed)], check=False)
        if done.returncode:
            finds += 1
            _say(f"{name}: exit code {done.returncode}; the last input lies in {INPUTS}")
    return finds


if __name__ == "__main__":
    sys.exit(main())
