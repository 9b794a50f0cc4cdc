"""Check a data set without a framework, and tell everything that is found at once."""

from .data_check import check_splits
from .leaks import Leak, find_leaks

__all__ = ["Leak", "check_splits", "find_leaks"]
