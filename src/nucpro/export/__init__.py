"""Merged vectors as rows that other programs open: Parquet, safetensors or NumPy shards.

Merged files of a data folder come in, a folder of shards with a manifest and checksums goes out. Nothing here
imports torch.
"""
