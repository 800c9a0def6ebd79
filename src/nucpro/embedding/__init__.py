"""Records to vectors: batches of tokens, an encoder on its device, FASTA files to files of vectors."""

from __future__ import annotations
