"""Hooks: what differs from the monitor of the core, a few lines each."""
