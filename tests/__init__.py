"""The tests. A package, so that processes which a test starts do not find that of another project on the path."""
