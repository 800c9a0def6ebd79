"""One grammar for all commands: how options are grouped and explained, and what is said of slips in typing."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nucpro
from nucpro.cli import main
from nucpro.cli.main import commands_of, purposes, tree
from nucpro.cli.parser import GROUPS, Parser

PARSERS = commands_of(tree())
WITH_MODELS = ("evaluate", "compare")
"""Commands about models, to which data come second."""
WITH_DATA = [
    name
    for name, parser in PARSERS.items()
    if name not in WITH_MODELS and any(a.dest == "data_dir" for a in parser.actions)
]


def options_of(parser: Parser) -> list[argparse.Action]:
    return [action for action in parser.actions if action.option_strings]


def test_all_commands_are_shown_by_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for names in purposes().values() for name in names] == list(PARSERS)
    for purpose, commands in purposes().items():
        section = shown.partition(f"\n{purpose}:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^  ([a-z-]+) ", section, re.M) == list(commands)
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", PARSERS)
def test_help_is_in_groups_and_fits(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    titles = re.findall(r"^(\w+):$", shown, re.M)
    assert titles == [title for title in GROUPS if title in titles] + ["examples"]
    assert shown.startswith(f"usage: nucpro {name} ")
    assert max(map(len, shown.partition("examples:")[0].splitlines())) <= 80


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_with_a_value_shows_its_default(name: str) -> None:
    for action in options_of(PARSERS[name]):
        if (
            action.nargs != 0
            and not action.required
            and action.default is not None
            and action.dest != "data_dir"
        ):
            assert "default" in str(action.help), (name, action.option_strings)


@pytest.mark.parametrize("name", PARSERS)
def test_examples_can_be_typed(name: str) -> None:
    assert PARSERS[name].example
    for line in PARSERS[name].example.splitlines():
        words = shlex.split(line, comments=True)
        start = words.index("nucpro") if "nucpro" in words else None
        if start is not None:
            end = next((place for place, word in enumerate(words) if place > start and word in "|>"), None)
            assert words[start + 1] == name
            commands_of(tree([name]))[name].parse_args(words[start + 2 : end])


@pytest.mark.parametrize("name", WITH_DATA)
def test_the_data_folder_is_the_first_argument_everywhere(name: str) -> None:
    required = {"dataset": ["--length", "300"], "export": ["--to", "npz"]}.get(name, [])
    found = PARSERS[name].parse_args(["here", *required])
    assert found.data_dir == Path("here")


@pytest.mark.parametrize("words", [["here"], ["--data-dir", "here"], ["--data-dir", "here", "--dry-run"]])
def test_extract_takes_its_folder_as_scripts_give_it_too(words: list[str]) -> None:
    assert PARSERS["extract"].parse_args(words).data_dir == Path("here")


@pytest.mark.parametrize("name", ["extract", "status", "validate", "train", "benchmark"])
def test_a_command_alone_is_enough_where_nothing_is_required(name: str) -> None:
    found = vars(PARSERS[name].parse_args([]))
    assert found.get("data_dir") in (None, Path("data"))


def test_options_mean_the_same_everywhere() -> None:
    meanings: dict[str, set[tuple[object, object]]] = {}
    for parser in PARSERS.values():
        for action in options_of(parser):
            for option in action.option_strings:
                meanings.setdefault(option, set()).add((action.type, action.nargs))
    # A model of fetch-models is any model; predict has that of a classifier. A limit of time is one of seconds.
    assert {option for option, kinds in meanings.items() if len(kinds) > 1} <= {
        "--model",
        "--revision",
        "--taxonomy",
    }
    assert "--restart" not in meanings
    assert "--replace-existing" not in meanings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["extrat", "data"], "nucpro: error: no command extrat; did you mean extract or export?"),
        (["predit", "x.fa"], "nucpro: error: no command predit; did you mean predict?"),
        (["xyzzy"], "nucpro: error: no command xyzzy\n"),
        (["--device", "cpu", "extract"], "nucpro: error: options come after a command"),
        (
            ["extract", "--sequence-per-files", "4"],
            "no option --sequence-per-files; did you mean --sequences-per-file?",
        ),
        (["status", "--wach"], "no option --wach; did you mean --watch?"),
        (["train", "--lerning-rate=3"], "no option --lerning-rate; did you mean --learning-rate?"),
        (["extract", "a", "b"], "nucpro extract: error: one argument too many: b"),
        (["extract", "a", "--data-dir", "b"], "nucpro extract: error: two data folders are given: a and b"),
        (["export", "data"], "nucpro export: error: the following arguments are required: --to"),
        (
            ["split", "--sequences-per-file", "many"],
            "argument --sequences-per-file: invalid int value: 'many'",
        ),
        (["validate", "--engine", "dask"], "argument --engine: invalid choice: 'dask'"),
        (["inspect", "x", "-q", "-v"], "not allowed with argument -q/--quiet"),
    ],
)
def test_a_slip_in_typing_is_answered_with_the_usage_of_the_command(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    said = capsys.readouterr().err
    assert code == 2
    assert message in said
    if words[0] in PARSERS:
        assert said.startswith(f"usage: nucpro {words[0]} ")
        assert said.endswith(f"All options: nucpro {words[0]} --help\n")
    else:
        assert said.endswith("All commands: nucpro --help\n")
    assert len(said.splitlines()) <= 3


@pytest.mark.parametrize(
    ("command", "words", "option", "value", "argument"),
    [
        ("predict", ["--plot", "contigs.fasta", "--model", "m"], "plots", 10, "input"),
        ("predict", ["--plot", "3", "contigs.fasta", "--model", "m"], "plots", 3, "input"),
        ("predict", ["contigs.fasta", "--model", "m", "--plot"], "plots", 10, "input"),
        ("status", ["--watch", "contigs.fasta"], "watch", 2.0, "data_dir"),
        ("status", ["--watch", "5", "contigs.fasta"], "watch", 5.0, "data_dir"),
    ],
)
def test_an_optional_number_takes_no_name_of_a_file(
    command: str, words: list[str], option: str, value: float, argument: str
) -> None:
    found = PARSERS[command].parse_args(words)
    given = getattr(found, argument)
    assert getattr(found, option) == value
    assert [str(path) for path in (given if isinstance(given, list) else [given])] == ["contigs.fasta"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in PARSERS)
    assert "sequences-per-file" in script


def test_bash_completes_a_command_and_an_option() -> None:
    code = """
source <("$0" -m nucpro completion bash)
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_nucpro; echo "${COMPREPLY[*]}"; }
complete_words nucpro embed
complete_words nucpro extract --seq
"""
    done = subprocess.run(["bash", "-c", code, sys.executable], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["embed-dna", "embed", "--sequences-per-file"]


MENTIONED = re.compile(
    r"nucpro ([a-z-]+)((?: (?:X|[A-Z]+|--[a-z][a-z-]*)(?![\\w]))*)( reads| calls| wrote|<)?"
)
PLACEHOLDERS = {"N": "300"}


def commands_in_messages() -> list[tuple[str, str, str]]:
    """Commands that messages name as something to type: place, name and arguments."""
    found = []
    for module in sorted((Path(nucpro.__file__).parent).rglob("*.py")):
        if module.parent.name == "cli":
            continue
        tree_of_module = ast.parse(module.read_text())
        prose = {id(node.value) for node in ast.walk(tree_of_module) if isinstance(node, ast.Expr)}
        parts = {
            id(part)
            for node in ast.walk(tree_of_module)
            if isinstance(node, ast.JoinedStr)
            for part in node.values
        }
        for node in ast.walk(tree_of_module):
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
                )
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and not {id(node)} & (prose | parts)
            ):
                text = node.value
            else:
                continue
            for name, words, mention in MENTIONED.findall(text.replace("%d,%d", "N")):
                if name in PARSERS and not mention:
                    found.append((f"{module.name}:{node.lineno}", name, words))
    return found


def test_commands_in_messages_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    found = commands_in_messages()
    assert len(found) > 20
    wrong = []
    for place, name, words in found:
        parser = commands_of(tree([name]))[name]
        try:
            arguments = parser.parse_args([PLACEHOLDERS.get(word, word) for word in words.split()])
        except SystemExit:
            wrong.append(f"{place}: nucpro {name}{words}: {capsys.readouterr().err.splitlines()[-2]}")
            continue
        if name in WITH_DATA and not words:
            wrong.append(
                f"{place}: nucpro {name}: names no data folder ({arguments.data_dir} is only the default)"
            )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["embed", "predict", "evaluate", "benchmark"])
def test_commands_without_a_data_folder_have_no_defaults_of_one(name: str) -> None:
    text = " ".join(PARSERS[name].format_help().split())
    assert "data folder's files" not in text
