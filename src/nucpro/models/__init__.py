"""The encoders: their forward passes, loading, identity of weights, and tokens."""

from __future__ import annotations
