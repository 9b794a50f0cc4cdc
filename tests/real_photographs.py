"""Real VOC annotations with a detector's results, read without our own reader."""

import xml.etree.ElementTree as ElementTree

from cvplugins.metrics import ImageDetections

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def real_images(folder):
    images = []
    for xml in sorted((folder / "VOCdevkit").glob("*/Annotations/*.xml")):
        truths = []
        for found in ElementTree.parse(xml).findall("object"):
            box = [float(found.find(f"bndbox/{side}").text) - 1 for side in ("xmin", "ymin", "xmax", "ymax")]
            truths.append((box, CLASSES.index(found.findtext("name")), found.findtext("difficult") == "1"))
        lines = [line.split() for line in (folder / "detections" / f"{xml.stem}.txt").read_text().splitlines()]
        images.append(
            ImageDetections(
                image_id=xml.stem,
                boxes=[[float(side) - 1 for side in line[2:]] for line in lines],
                scores=[float(line[1]) for line in lines],
                labels=[CLASSES.index(line[0]) for line in lines],
                truth_boxes=[box for box, _, _ in truths],
                truth_labels=[label for _, label, _ in truths],
                difficult=[difficult for _, _, difficult in truths],
            )
        )
    return images
