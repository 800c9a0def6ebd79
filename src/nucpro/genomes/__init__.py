"""Genomes of the RefSeq release: selection, and download into the data folder."""
