"""Small annotations of PASCAL VOC's and COCO's form, with whatever is wrong with them, and configs that read them."""

import json

from PIL import Image

WIDTH, HEIGHT = 60, 40


def write_devkit(folder, images, split="trainval", year="VOC2007"):
    """Write images with objects ``(name, box)`` or ``(name, box, difficult)`` in VOC's layout; return the devkit."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / year / part).mkdir(parents=True, exist_ok=True)
    for image_id, objects in images.items():
        Image.new("RGB", (WIDTH, HEIGHT), "gray").save(folder / year / "JPEGImages" / f"{image_id}.jpg")
        (folder / year / "Annotations" / f"{image_id}.xml").write_text(voc_xml(objects))
    (folder / year / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{each}\n" for each in images))
    return folder


def voc_xml(objects):
    found = []
    for name, box, *difficult in objects:
        sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(SIDES, box, strict=True))
        flag = f"<difficult>{int(any(difficult))}</difficult>"
        found.append(f"<object>\n<name>{name}</name>\n{flag}\n<bndbox>{sides}</bndbox>\n</object>\n")
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>\n"
    return f"<annotation>\n{size}{''.join(found)}</annotation>\n"


SIDES = ("xmin", "ymin", "xmax", "ymax")


def write_coco(path, categories, objects, images=2):
    """Write images and a file of categories ``(id, name)`` and objects ``(image, category, box)``, or more keys."""
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "area": 9.0, "iscrowd": 0}
        | (more[0] if more else {})
        for number, (image, category, box, *more) in enumerate(objects, start=1)
    ]
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT}
            for number in range(1, images + 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    for each in content["images"]:
        if not (path.parent / each["file_name"]).exists():
            Image.new("RGB", (WIDTH, HEIGHT), "gray").save(path.parent / each["file_name"])
    return path


PIPELINE = (
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "Resize", "scale": (WIDTH, HEIGHT), "keep_ratio": True},
    {"type": "PackDetInputs"},
)


def dataset(kind, root, ann_file, classes=None, test_mode=False, **more):
    found = {
        "type": kind,
        "data_root": str(root),
        "ann_file": ann_file,
        "data_prefix": {"sub_data_root": "VOC2007/"} if kind == "VOCDataset" else {"img": ""},
        "pipeline": [dict(step) for step in PIPELINE],
        "test_mode": test_mode,
        **more,
    }
    return found if classes is None else {**found, "metainfo": {"classes": classes}}


def config(train, val=None, model=None, **more):
    """Return a config of mmdet with these datasets, which holds nothing else that a check of the data reads."""
    from mmengine.config import Config

    loaders = {"train_dataloader": {"dataset": train}}
    if val is not None:
        loaders["val_dataloader"] = {"dataset": val}
    return Config({"default_scope": "mmdet", "work_dir": "no/work", "model": model, **loaders, **more})


def check(cfg):
    from cvplugins.openmmlab.data.checks import check_data

    loaders = tuple(key for key in ("train_dataloader", "val_dataloader") if key in cfg)
    before = cfg.to_dict()
    changes = check_data(cfg, loaders)
    assert cfg.to_dict() == before
    changes.apply(cfg, loaders)
