"""What Detectron2's batches consist of besides tensors and plain data; restoring one of these only sets attributes.

By name, so that nothing of Detectron2 is needed to read a replay file of another framework.
"""

__all__ = ["DATA_CLASSES"]

DATA_CLASSES = {
    "detectron2.structures": ("BitMasks", "Boxes", "Instances", "Keypoints", "PolygonMasks", "RotatedBoxes"),
}
