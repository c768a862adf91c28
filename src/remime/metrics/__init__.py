"""Metrics: pure functions on numpy arrays, one file a family, and the registry of their definitions."""

from remime.metrics.registry import IMAGE, METRICS, SIGNALS, TABLE1, Metric

__all__ = ["IMAGE", "METRICS", "SIGNALS", "TABLE1", "Metric"]
