"""The encoders: their forward passes, loading, identity of weights, and tokens."""
