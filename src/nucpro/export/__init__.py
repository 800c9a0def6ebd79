"""Merged vectors as rows that other programs open: Parquet, safetensors or NumPy shards.

Merged files of a data folder come in, a folder of shards with a manifest and checksums goes out. Nothing here
imports torch.
"""

from __future__ import annotations

from nucpro.export.exporting import Exported, export, export_folder
from nucpro.export.formats import FORMATS

__all__ = ["FORMATS", "Exported", "export", "export_folder"]
