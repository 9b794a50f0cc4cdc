"""What OpenMMLab's batches consist of besides tensors and plain data; restoring one of these only sets attributes.

By name, so that nothing of OpenMMLab is needed to read a replay file of another framework.
"""

__all__ = ["DATA_CLASSES"]

DATA_CLASSES = {
    "mmengine.structures": ("BaseDataElement", "InstanceData", "LabelData", "PixelData"),
    "mmdet.structures": ("DetDataSample", "ReIDDataSample", "TrackDataSample"),
    "mmdet.structures.bbox": ("HorizontalBoxes",),
    "mmdet.structures.mask": ("BitmapMasks", "PolygonMasks"),
    "mmseg.structures": ("SegDataSample",),
}
