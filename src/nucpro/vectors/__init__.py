"""Vectors of anyone's sequences, outside of a data folder: what ``nucpro embed`` and the Python API compute.

Records come in, from a file or from memory; a file of vectors goes out, or an array.
"""
