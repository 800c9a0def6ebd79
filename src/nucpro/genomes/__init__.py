"""Genomes from the RefSeq release: what is chosen, and how it gets into the data folder."""
