"""A data folder: its paths, what lies in it, which files are selected, and splitting."""
