"""Reporting: figures and tables drawn from typed results."""

from .detection import detection_table, draw_detection_figure

__all__ = ["detection_table", "draw_detection_figure"]
