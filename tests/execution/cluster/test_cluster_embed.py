"""Files of vectors made on a cluster: the vectors of the local run, up to rounding."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nucpro
from nucpro.formats.sequences import SequenceType
from nucpro.options import Options
from nucpro.vectors.inputs import PartSize
from nucpro.vectors.job import EmbedOptions, embed_files

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("node")]


def test_two_workers_make_the_vectors_of_the_local_run(head: Any, tmp_path: Path, model: Path) -> None:
    draw = random.Random(3)
    inputs = [tmp_path / "a.fa", tmp_path / "b.fa"]
    for path in inputs:
        proteins = ("".join(draw.choices("ACDEFGHIKLMNPQRSTVWY", k=draw.randint(5, 90))) for _ in range(9))
        path.write_text("".join(f">{path.stem}{row}\n{one}\n" for row, one in enumerate(proteins)))
    engines = {"local": {}, "ray": {"engine": "ray", "address": head.address, "workers": 2}}
    for engine, options in engines.items():
        models = Options(protein_model=str(model), device="cpu", **options)
        jobs = [
            EmbedOptions(
                path,
                tmp_path / engine / f"{path.stem}.npz",
                models,
                SequenceType.PROTEIN,
                part=PartSize(3, 999),
            )
            for path in inputs
        ]
        reports = embed_files(jobs)
        assert [(report.records, report.computed) for report in reports] == [(9, 9), (9, 9)]
    for path in inputs:
        local, remote = (nucpro.read_vectors(tmp_path / engine / f"{path.stem}.npz") for engine in engines)
        assert local.ids == remote.ids
        # Processors of a cluster may round otherwise than those of the driver.
        assert np.abs(local.matrix - remote.matrix).max() <= 2e-6
