"""Metrics: what a model gives to plain arrays; the core computes."""
