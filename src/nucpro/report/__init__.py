"""What a run left behind, to look at: one HTML page that needs no network, and pictures for papers."""

from __future__ import annotations

from nucpro.report.subject import FileState, Output, Subject
from nucpro.report.writing import MOST_POINTS, POINTS, report_at_end, report_folder, write_report

__all__ = [
    "MOST_POINTS",
    "POINTS",
    "FileState",
    "Output",
    "Subject",
    "report_at_end",
    "report_folder",
    "write_report",
]
