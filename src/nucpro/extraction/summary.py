"""The words of a run: what was found, what will be done, and what came out. Text only; others show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nucpro.execution.runner import Statistics
from nucpro.extraction.plan import Plan, State
from nucpro.extraction.validation import FileVerdict
from nucpro.folder.paths import HOST_CATEGORIES
from nucpro.folder.selection import Selection
from nucpro.formats.sequences import Side

__all__ = [
    "discovery_lines",
    "dna_verdict_line",
    "human_time",
    "outside_lines",
    "plan_lines",
    "state_lines",
    "statistics_lines",
    "verdict_lines",
]

_SHOWN = 10


def discovery_lines(selection: Selection, plan: Plan) -> list[str]:
    """Summary of what was found: files by category, totals, what is done, what is stale and why."""
    by_category = Counter(pair.category for pair in selection.hosts)
    sequences = sum(item.facts.records for item in plan.items)
    hosts = (
        ", ".join(f"{name} {by_category[name]}" for name in HOST_CATEGORIES if by_category[name]) or "none"
    )
    done = sum(item.is_done for item in plan.items)
    lines = [
        f"Viral files: {len(selection.viral)}",
        f"Host files:  {len(selection.hosts)} ({hosts}), selection: {selection.reason}",
        f"Sequences:   {sequences}",
        f"Done:        {done} of {len(plan.items)} files",
    ]
    kept = Counter(item.kept_as for item in plan.items if item.kept_as)
    if kept:
        how = ", ".join(f"{count} {kept_as}" for kept_as, count in sorted(kept.items()))
        lines.append(f"Kept:        {kept.total()} files that do not say how they were made ({how})")
    lines += [f"Warning: {warning}" for warning in selection.warnings]
    too_long = sum(item.facts.over_limit for item in plan.items)
    if too_long:
        lines.append(f"Warning: {too_long} sequences are longer than the model reads, and will be cut")
    lines += _limited([f"Stale: {reason}" for item in plan.items for reason in item.reasons])
    return lines


def plan_lines(plan: Plan) -> list[str]:
    """What a run would make, replace and keep, file by file, and the disk it needs."""
    lines = []
    for item in plan.items:
        for state, path in ((item.vectors, item.pair.vectors(plan.side)), (item.merged, item.pair.merged)):
            if state is None:
                continue
            verb = {State.DONE: "keep", State.MISSING: "make", State.STALE: "replace"}[state]
            is_to_verify = item.to_verify and path == item.pair.vectors(plan.side)
            lines.append(f"{'verify' if is_to_verify else verb:8}{path}")
    write, replaced = (sum(sizes) for sizes in zip((0, 0), *plan.space.values(), strict=True))
    lines.append(
        f"Disk: {write / 1e9:.2f} GB to write, {replaced / 1e9:.2f} GB of existing files are replaced"
    )
    return lines


def state_lines(plan: Plan) -> list[str]:
    """How many outputs are done, missing and stale."""
    lines = []
    for what, states in (
        ("Protein", Counter(item.vectors for item in plan.items)),
        ("Merged", Counter(item.merged for item in plan.items)),
    ):
        counts = ", ".join(f"{states[state]} {state}" for state in State)
        lines.append(f"{what + ' files:':15}{counts}")
    return lines


def statistics_lines(statistics: Statistics, side: Side) -> list[str]:
    """Counts, times and rates of a run."""
    count, seconds = statistics, statistics.seconds
    letters = "residues" if side is Side.PROTEIN else "bases"
    lines = [f"Extracted {count.files} files, {count.sequences} sequences in {human_time(seconds)}"]
    if count.files and seconds > 0:
        lines.append(
            f"Time: {seconds / count.files:.2f} s a file, {1000 * seconds / count.sequences:.3f} ms a sequence; "
            f"rate: {count.sequences / seconds:,.0f} sequences/s, {count.size / seconds:,.0f} {letters}/s, "
            f"{count.tokens / seconds:,.0f} tokens/s"
        )
    if side is Side.PROTEIN:
        lines.append(f"Merged {count.merged} files")
    if count.truncated:
        lines.append(f"Warning: {count.truncated} sequences were cut at the longest input of the model")
    if count.splits:
        lines.append(
            f"Warning: {count.splits} batches were split because memory ran out; use --tokens-per-batch"
        )
    if count.unknown_tokens:
        share = count.unknown_tokens / count.tokens
        lines.append(
            f"Warning: {count.unknown_tokens} tokens ({share:.2%}) are unknown to the model (runs of N?)"
        )
    return lines


def verdict_lines(verdicts: Sequence[FileVerdict]) -> list[str]:
    """Result of a validation without problems; the last line is the one that scripts look for."""
    total = sum(verdict.records for verdict in verdicts)
    viral = sum(verdict.records for verdict in verdicts if verdict.pair.label)
    return [
        f"Classes: {viral} viral, {total - viral} host sequences",
        f"Validation passed: {len(verdicts)} files, {total} sequences, all dimensions correct",
    ]


def dna_verdict_line(plan: Plan) -> str:
    """Result of a validation of DNABERT-S files without problems."""
    total = sum(item.facts.records for item in plan.items)
    return f"Validation passed: {len(plan.items)} DNA files, {total} sequences, all dimensions correct"


def human_time(seconds: float) -> str:
    """``2 h 03 min``, ``4 min 05 s`` or ``6.7 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _limited(lines: list[str]) -> list[str]:
    if len(lines) <= _SHOWN:
        return lines
    return [*lines[:_SHOWN], f"… and {len(lines) - _SHOWN} more like these"]


def outside_lines(paths: Sequence[Path]) -> list[str]:
    """Files in the output folders that belong to no selected pair."""
    return _limited([f"Outside the selection: {path}" for path in paths])
