"""How long the check of a data set takes before work begins, and again with what the first run kept.

Run ``python benchmarks/data_check.py [NUMBER]``, 20,000 images if absent. The VOC sample's photographs and XML files,
or drawn label maps of ADE20K's size, of which all are read because one class occurs in none; every name is a file of
its own for the check, linked to few files on disk, so that what is measured is the processor's work.

``OMP_NUM_THREADS=1 python benchmarks/data_check.py`` on two cores that many others shared (load 12 to 18), so that the
seconds of the processor count::

    VOC, first run: 52.3 s, processor 14.2 s
    VOC, second run: 38.3 s, processor 8.3 s
    scenes, first run: 418.0 s, processor 81.5 s
    scenes, second run: 88.3 s, processor 10.3 s

Label maps are decoded on all cores: two need some 41 s for the first run over 20,000 scenes.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cvplugins.datasets import check_label_images, check_voc
from cvplugins.datasets.label_images import check_classes_occur

DISTINCT = 40
CLASSES = 150


def main() -> None:
    """Make both data sets and time two checks of each."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CVPLUGINS_CACHE_DIR"] = str(Path(folder, "cache"))
        devkit, pairs = _voc(Path(folder, "VOCdevkit"), number), _scenes(Path(folder, "scenes"), number)
        time.sleep(3)  # files that were changed a moment ago are not kept
        for name, check in (
            ("VOC", lambda: check_voc(devkit, [("VOC2007", "trainval")])),
            ("scenes", lambda: _check_scenes(pairs)),
        ):
            for run in ("first", "second"):
                begun, used = time.perf_counter(), time.process_time()
                check()
                taken, worked = time.perf_counter() - begun, time.process_time() - used
                print(f"{name}, {run} run: {taken:.1f} s, processor {worked:.1f} s")


def _check_scenes(pairs: list[tuple[Path, Path]]) -> None:
    report = check_label_images(pairs, CLASSES)
    for warning in check_classes_occur(report, {index: str(index) for index in range(CLASSES)}):
        print(warning)


def _voc(devkit: Path, number: int) -> Path:
    """Link the embedded sample's files, blown up to VOC's size, under many names."""
    source = Path(__file__).parents[1] / "data" / "sample" / "VOCdevkit" / "VOC2007"
    folder = devkit / "VOC2007"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main", "few"):
        (folder / part).mkdir(parents=True)
    names = sorted(path.stem for path in (source / "JPEGImages").glob("*.jpg"))[:DISTINCT]
    for name in names:
        shutil.copy(source / "JPEGImages" / f"{name}.jpg", folder / "few" / f"{name}.jpg")
        shutil.copy(source / "Annotations" / f"{name}.xml", folder / "few" / f"{name}.xml")
    ids = [f"{index:06d}" for index in range(number)]
    for index, image_id in enumerate(ids):
        few = folder / "few" / names[index % len(names)]
        os.link(few.with_suffix(".jpg"), folder / "JPEGImages" / f"{image_id}.jpg")
        os.link(few.with_suffix(".xml"), folder / "Annotations" / f"{image_id}.xml")
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(ids))
    return devkit


def _scenes(folder: Path, number: int) -> list[tuple[Path, Path]]:
    """Draw label maps of ADE20K's size in which the last class never occurs, so that all of them are read."""
    generator = np.random.default_rng(0)
    (folder / "few").mkdir(parents=True)
    for index in range(DISTINCT):
        photograph = generator.integers(0, 255, (32, 43, 3), dtype=np.uint8)
        labels = generator.integers(0, CLASSES - 1, (16, 21), dtype=np.uint8)
        Image.fromarray(photograph).resize((683, 512)).save(folder / "few" / f"{index}.jpg")
        Image.fromarray(labels).resize((683, 512), Image.Resampling.NEAREST).save(folder / "few" / f"{index}.png")
    pairs = []
    for index in range(number):
        pair = folder / f"{index:06d}.jpg", folder / f"{index:06d}.png"
        for path in pair:
            os.link(folder / "few" / f"{index % DISTINCT}{path.suffix}", path)
        pairs.append(pair)
    return pairs


if __name__ == "__main__":
    main()
