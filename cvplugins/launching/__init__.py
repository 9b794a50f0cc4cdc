"""Jobs: what can be asked of a training or a test, in either framework."""

from .jobs import Evaluation, Training

__all__ = ["Evaluation", "Training"]
