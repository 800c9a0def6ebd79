"""nucpro: joined DNABERT-S and protein language model embeddings of viral and host sequences."""

__all__ = ["__version__"]

__version__ = "0.1.0"
