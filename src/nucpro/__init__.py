"""nucpro: joined DNABERT-S and protein language model embeddings of viral and host sequences."""

from __future__ import annotations

__all__ = ["__version__"]

__version__: str
"""Version that was installed, made from the git tag; ``0+unknown`` where a source tree runs uninstalled."""


def __getattr__(name: str) -> str:
    # Looked up where it is asked for: reading metadata takes longer than all else before a signal is answered.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("nucpro")
    except PackageNotFoundError:
        return "0+unknown"
