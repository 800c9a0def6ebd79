"""Pages, messages, docstrings and comments use the terms of the field, as `docs/glossary.md` lists them."""

from __future__ import annotations

import functools
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
MODULES = sorted((ROOT / "src").rglob("*.py"))
# Words that a reader stumbles over, with what is written instead.
WORDS = {
    r"\b(made|drawn|merged|computed|begins?|begin) anew\b": "recomputed, sampled again, starts over",
    r"\bstands? against\b": "for, compared with",
    r"\b(is|are) concerned\b": "affected",
    r"\bby nobody knows what\b": "by an unknown model",
    r"\blos(t|es|e) (its|their) ends?\b": "truncated",
    r"\b(is|are|be) there (twice|more than once)\b": "duplicate",
    r"\b(vectors?|rows?|lines?|values?|bytes|tokens|bases|residues|sequences|files|[numk]?s|[KMG]B) an? "
    r"(sequence|file|record|row|minute|hour)\b": "per",
    r"\b(one|vectors?|bytes|tokens|bases|residues|sequences|files|records|[KMG]B) an? second\b": "per second",
    r"\bone an? (sequence|file|record|row|line|genome)\b": "one per",
    r"\bstrangers?\b": "neighbours of the other class",
    r"\b(upper-case|residue|nucleotide) letters\b": "residues, bases, upper-case sequence",
    r"\bletters of (a|an|the|each|one|many) (record|sequence|protein|frame|genome)s?\b": "residues, bases, length",
    r"\b(rooms|this room|the room)\b": "package, module, space",
    r"\bseal(s|ed|ing)?\b": "checksum",
    r"\b(DNA|protein|nucleotide|either|both|of a|of each|each|this|per) sides?\b": "sequence type, file",
    r"\bletters (outside|and|of|without|are)\b|\bplain letters\b": "characters, residues, bases",
    r"\bthe others (are|were|is|was)\b|\band the others\b": "the rest, name them",
    r"\b(is|are|was|were|be) told\b|\b(does|do|could|can) not tell\b|\btold apart\b": "reported, distinguished",
    r"\b(nothing|cards?|configs?|config\.json|GenBank|ids|files?|folders?|records?|the log|the page) "
    r"(do(es)? not )?(says?|tells?|knows?)\b": "contains, records, shows",
    r"\b(goes|going|went) on (with|where|after|for)\b": "resumes, continues",
    r"\bmade again\b": "recomputed, recreated, rewritten",
    r"\bcut off\b": "truncated",
    r"\bth(row|rows|rew|rown|rowing) (it |them )?away\b": "discarded, deleted",
    r"\bby (nobody|somebody)\b|\bof (one's|somebody's) own\b": "name who",
    r"\blies? (in|behind|beside|under|on)\b": "is in, contains",
    r"\blooked at\b|\blooks? at (all|everything|the)\b": "checked, read",
}


@functools.cache
def prose() -> tuple[tuple[Path, int, str], ...]:
    """Lines of the pages, and strings and comments of the modules, with file and number of the first line."""
    found = [
        (page, number, line)
        for page in PAGES
        for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1)
    ]
    kinds = (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1))
    for module in MODULES:
        tokens = tokenize.generate_tokens(io.StringIO(module.read_text("utf-8")).readline)
        found += [(module, t.start[0], " ".join(t.string.split())) for t in tokens if t.type in kinds]
    return tuple(found)


@pytest.mark.parametrize("pattern", WORDS)
def test_words_of_the_field_are_used(pattern: str) -> None:
    word = re.compile(pattern, re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r} in: {text[max(0, match.start() - 60) : match.end() + 40]}"
        for path, number, text in prose()
        for match in word.finditer(text)
    ]
    assert not found, f"write {WORDS[pattern]} instead:\n" + "\n".join(found)
