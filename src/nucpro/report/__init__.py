"""What a run left behind, to look at: one HTML page that needs no network, and pictures for papers."""

from __future__ import annotations

from nucpro.report.subject import FileState, Output, Subject
from nucpro.report.writing import MOST_POINTS, POINTS, missing_packages, write_report

__all__ = ["MOST_POINTS", "POINTS", "FileState", "Output", "Subject", "missing_packages", "write_report"]
