"""Reads nucpro's vectors with NumPy alone, without nucpro and torch: python read_vectors.py FILE..."""

import io
import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


class PlainValues(pickle.Unpickler):
    """Builds dicts, lists, strings, numbers and arrays; any other name in the pickle is an error."""

    def __init__(self, archive):
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        self.archive, self.folder = archive, pickled.removesuffix("data.pkl")
        super().__init__(io.BytesIO(archive.read(pickled)))

    def find_class(self, module, name):
        known = {("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): tensor}
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in known:
            return known[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")

    def persistent_load(self, reference):
        _, dtype, key, _, _ = reference
        return np.frombuffer(self.archive.read(f"{self.folder}data/{key}"), dtype)


def tensor(storage, offset, shape, strides, *_):
    end = (
        offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1 if all(shape) else 0
    )
    if min((offset, *shape, *strides)) < 0 or end > storage.size:
        raise ValueError("a tensor reaches beyond its storage")
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def read_pt(path):
    """Dict of a .pt file: ids, and vectors as arrays."""
    with zipfile.ZipFile(path) as archive:
        return PlainValues(archive).load()


def read_safetensors(path):
    """Tensors of a .safetensors file by name, as arrays."""
    data = Path(path).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    entries = {name: entry for name, entry in json.loads(data[8:end]).items() if name != "__metadata__"}
    parts = {name: data[slice(*(end + n for n in entry["data_offsets"]))] for name, entry in entries.items()}
    return {n: np.frombuffer(parts[n], DTYPES[e["dtype"]]).reshape(e["shape"]) for n, e in entries.items()}


if __name__ == "__main__":
    for path in sys.argv[1:]:
        found = read_safetensors(path) if path.endswith(".safetensors") else read_pt(path)
        print(path, {key: getattr(value, "shape", None) or len(value) for key, value in found.items()})
