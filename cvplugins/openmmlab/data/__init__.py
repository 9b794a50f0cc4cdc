"""Data: what the framework's own loaders make of it, checked before any work."""
