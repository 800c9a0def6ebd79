"""The engine of many GPUs and many machines, on Ray."""

from nucpro.cluster.engine import ClusterEngine

__all__ = ["ClusterEngine"]
