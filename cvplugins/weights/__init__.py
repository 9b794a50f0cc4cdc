"""Weights of one framework's model for the same model of another."""

from .conversion import convert_checkpoint
from .faster_rcnn import FRAMEWORKS, convert_weights

__all__ = ["FRAMEWORKS", "convert_checkpoint", "convert_weights"]
