"""The API page: every function that it shows describes its parameters and what it returns."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
PACKAGES = ("nucpro", "nucpro.cli", "nucpro.formats")
TABLE = re.compile(r"`(nucpro\.\S+)`(?:, `\.(\w+)`)? \| (?:`nucpro|a path)")
SHOWN = re.compile(r"^::: (\S+)(?:\n    options:\n      members: \[([^\]]*)\])?", re.MULTILINE)


def shown() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and function of everything on the page or in a package that can be called, methods of classes included."""
    text = PAGE.read_text("utf-8")
    for name, other in TABLE.findall(text):
        for one in filter(None, (name, other and f"{name.rpartition('.')[0]}.{other}")):
            yield one, resolved(one)
    for package in PACKAGES:
        for member in resolved(package).__all__:
            yield from functions(f"{package}.{member}", getattr(resolved(package), member))
    for name, members in SHOWN.findall(text):
        found = resolved(name)
        chosen = (
            [member.strip() for member in members.split(",")] if members else getattr(found, "__all__", None)
        )
        if inspect.isclass(found) or chosen is not None:
            for member in chosen or vars(found):
                yield from functions(
                    f"{name}.{member}", inspect.getattr_static(found, member, None) or getattr(found, member)
                )
        else:
            yield name, found


def resolved(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, member = name.rpartition(".")
        return getattr(importlib.import_module(module), member)


def functions(name: str, found: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    if name.rpartition(".")[2].startswith("_"):
        return
    if inspect.isclass(found):
        for member, value in vars(found).items():
            yield from functions(f"{name}.{member}", value)
    elif isinstance(found, staticmethod | classmethod):
        yield name, found.__func__
    elif inspect.isfunction(found):
        yield name, found


def test_functions_describe_their_parameters_and_results() -> None:
    lacking = []
    for name, function in shown():
        text = inspect.getdoc(function) or ""
        signature = inspect.signature(function)
        if signature.parameters.keys() - {"self", "cls"} and "\nParameters\n---" not in text:
            lacking.append(f"{name}: Parameters")
        if signature.return_annotation not in ("None", "NoReturn") and not re.search(
            r"\n(Returns|Yields)\n---", text
        ):
            lacking.append(f"{name}: Returns")
    assert lacking == []
