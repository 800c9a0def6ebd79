"""A data folder to report on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from folders import Frame
from nucpro.folder.paths import DataFolder
from nucpro.report.subject import Subject
from nucpro.state.history import DONE, Recorder
from report_folders import HOSTILE, add_files, subject_of


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, frames: dict[str, list[Frame]]) -> Subject:
    """Four viral and three host files of ten sequences; some ids and a file name are hostile; one run."""
    data = tmp_path_factory.mktemp("report") / 'data <b>&"'
    data.mkdir()
    viral = [
        replace(frame, name=HOSTILE[place]) if place < len(HOSTILE) else frame
        for place, frame in enumerate(frames["viral.1.1"][:40])
    ]
    pairs = add_files(data, "viral.1.1", viral)
    pairs += add_files(data, "bacteria.<i>", frames["bacteria.1.1"][:20])
    pairs += add_files(data, "invertebrate.1.1", frames["invertebrate.1.1"][:10])
    run = Recorder(DataFolder(data), {"side": "protein", "options": {"device": "cpu"}})
    run.open(len(pairs), 0, 1000)
    for pair in pairs:
        run.file(pair.key, 2.5, 10, 1000, 1020, 1.5)
    run.close(DONE)
    return subject_of(data, pairs)
