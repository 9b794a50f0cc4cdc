"""Which files the hook writes, without a run. Oracle: the arrays that it was given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.openmmlab


@pytest.fixture
def given(tmp_path):
    """A runner whose data set has images in a subfolder, and one predicted sample."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    from PIL import Image

    path = tmp_path / "images" / "town" / "a.b.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (6, 4), (90, 90, 90)).save(path)
    dataset = SimpleNamespace(
        data_prefix={"img_path": str(tmp_path / "images")},
        metainfo={"classes": ("wall", "sky"), "palette": [(255, 0, 0), (0, 0, 255)]},
    )
    sample = SegDataSample(metainfo={"img_path": str(path)})
    sample.pred_sem_seg = PixelData(data=(torch.arange(24).reshape(1, 4, 6) % 2))
    return SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset)), sample


def write(given, folder, **options):
    from mmengine.registry import HOOKS

    runner, sample = given
    HOOKS.build(dict(type="cvplugins.SegmentationImagesHook", **options)).after_test_iter(runner, 0, None, [sample])
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


@pytest.mark.parametrize(("reduced", "first"), [(False, 0), (True, 1)])
def test_label_maps_hold_the_labels_of_the_files(given, tmp_path, reduced, first):
    from PIL import Image

    given[1].set_metainfo({"reduce_zero_label": reduced})
    assert write(given, tmp_path / "maps", label_dir=tmp_path / "maps") == ["town/a.b.png"]
    image = Image.open(tmp_path / "maps/town/a.b.png")
    assert (image.mode, image.size) == ("L", (6, 4))
    assert np.array_equal(np.asarray(image), np.arange(24).reshape(4, 6) % 2 + first)


def test_overlays_have_a_panel_more_with_an_annotation(given, tmp_path):
    from PIL import Image

    write(given, tmp_path / "two", overlay_dir=tmp_path / "two")
    given[1].gt_sem_seg = given[1].pred_sem_seg
    write(given, tmp_path / "three", overlay_dir=tmp_path / "three")
    widths = [Image.open(tmp_path / name / "town/a.b.png").width for name in ("two", "three")]
    assert widths == [2 * 324 + 6, 3 * 324 + 12]
