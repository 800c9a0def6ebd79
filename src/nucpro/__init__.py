"""nucpro: joined DNABERT-S and protein language model embeddings of viral and host sequences.

What scripts and notebooks need is here, and imported when it is asked for: ``import nucpro`` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nucpro import errors
    from nucpro.api import (
        Embeddings,
        Encoder,
        Prediction,
        Rows,
        load_encoder,
        load_rows,
        predict,
        read_merged,
        read_vectors,
    )

__all__ = [
    "Embeddings",
    "Encoder",
    "Prediction",
    "Rows",
    "__version__",
    "errors",
    "load_encoder",
    "load_rows",
    "predict",
    "read_merged",
    "read_vectors",
]

__version__: str
"""Version that was installed, made from the git tag; ``0+unknown`` where a source tree runs uninstalled."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    if name == "errors":
        return import_module("nucpro.errors")
    if name != "__version__":
        return getattr(import_module("nucpro.api"), name)
    # Looked up where it is asked for: reading metadata takes longer than all else before a signal is answered.
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("nucpro")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
