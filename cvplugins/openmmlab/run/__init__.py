"""Runs: from a config to a training or a test."""
