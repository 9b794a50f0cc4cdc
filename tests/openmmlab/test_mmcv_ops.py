"""mmcv.ops, as users call it, on operators that are not compiled."""

import importlib.util
import re
import shutil
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, PathFinder
from pathlib import Path

import numpy as np
import pytest
import torch
from ops.cases_nms import random_boxes
from torchvision.ops import batched_nms as torchvision_batched_nms

pytestmark = pytest.mark.openmmlab


@pytest.fixture(scope="module")
def source(root):
    """The file that the operators' distribution installs."""
    return root / "packages" / "mmcv-ops" / "mmcv" / "_ext.py"


@pytest.fixture(scope="module")
def extension(source):
    """The same as a module, whatever is installed."""
    spec = importlib.util.spec_from_file_location("mmcv_ext_under_test", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def detections(count=300):
    inputs = random_boxes(count, seed=5)
    boxes, scores = torch.from_numpy(inputs["boxes"]), torch.from_numpy(inputs["scores"])
    return boxes - boxes.min(), scores, torch.randint(0, 4, (count,), generator=torch.Generator().manual_seed(1))


def test_the_module_has_every_name_that_mmcv_loads(extension):
    import mmcv

    named = []
    for file in Path(mmcv.__file__).parent.glob("ops/*.py"):
        for call in file.read_text().split("load_ext(")[1:]:
            named += re.findall(r"'(\w+)'", call.partition("[")[2].partition("]")[0])
    assert len(named) > 100
    assert [name for name in named if not hasattr(extension, name)] == []
    assert not hasattr(extension, "__path__")  # what Python itself asks for stays unknown


@pytest.mark.parametrize(
    ("installed", "command"),
    [
        (
            {"onedl-mmcv": "2.3.6"},
            'pip install "setuptools>=80" wheel ninja && pip install --no-build-isolation --no-cache-dir '
            "--force-reinstall --no-deps onedl-mmcv==2.3.6",
        ),
        (
            {"mmcv-lite": "2.1.0"},
            'pip uninstall -y mmcv-lite && pip install "setuptools<70" wheel ninja && pip install '
            "--no-build-isolation --no-cache-dir --force-reinstall --no-deps mmcv==2.1.0",
        ),
    ],
)
def test_another_operator_is_named_with_the_command_that_compiles_it(extension, monkeypatch, installed, command):
    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(extension.metadata, "version", version)
    with pytest.raises(NotImplementedError) as error:
        extension.nms_rotated(torch.zeros(1, 5), torch.zeros(1), iou_threshold=0.5)
    said = "mmcv's operator nms_rotated is not in cvplugins-mmcv-ops; it needs the compiled mmcv: "
    assert str(error.value) == said + command


def test_a_compiled_module_beside_it_wins(source, tmp_path):
    shutil.copy(source, tmp_path / "_ext.py")
    assert PathFinder.find_spec("_ext", [str(tmp_path)]).origin == str(tmp_path / "_ext.py")
    (tmp_path / f"_ext{EXTENSION_SUFFIXES[0]}").touch()
    importlib.invalidate_caches()
    found = PathFinder.find_spec("_ext", [str(tmp_path)])
    assert isinstance(found.loader, ExtensionFileLoader)
    assert found.origin == str(tmp_path / f"_ext{EXTENSION_SUFFIXES[0]}")


def test_what_is_said_about_the_build(extension):
    assert extension.get_compiling_cuda_version() == "not available"
    assert extension.get_compiler_version() == "none (cvplugins-mmcv-ops)"


@pytest.mark.parametrize("split", [10_000, 100])
@pytest.mark.parametrize("together", [False, True])
def test_batched_nms_equals_torchvision(split, together):
    from mmcv.ops import batched_nms

    boxes, scores, labels = detections()
    options = {"type": "nms", "iou_threshold": 0.5, "split_thr": split}
    dets, kept = batched_nms(boxes, scores, labels, options, class_agnostic=together)
    groups = torch.zeros_like(labels) if together and split > len(boxes) else labels
    expected = torchvision_batched_nms(boxes, scores, groups, 0.5)
    assert torch.equal(kept, expected)
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[expected])


def test_batched_soft_nms_is_soft_nms_of_each_class():
    from mmcv.ops import batched_nms, soft_nms

    boxes, scores, labels = detections()
    options = {"type": "soft_nms", "iou_threshold": 0.3, "min_score": 0.05}
    dets, kept = batched_nms(boxes, scores, labels, options)
    assert dets[:, 4].tolist() == sorted(dets[:, 4].tolist(), reverse=True)
    for label in range(4):
        of_label = (labels == label).nonzero()[:, 0]
        alone, indices = soft_nms(boxes[of_label], scores[of_label], 0.3, min_score=0.05)
        mine = labels[kept] == label
        assert torch.equal(kept[mine], of_label[indices])
        torch.testing.assert_close(dets[mine], alone, rtol=1e-4, atol=1e-4)  # the classes are moved apart first


def test_numpy_goes_in_and_comes_out():
    from mmcv.ops import nms, nms_match, soft_nms

    inputs = random_boxes(50, seed=6)
    for function in (nms, soft_nms):
        dets, kept = function(inputs["boxes"], inputs["scores"], 0.5)
        assert isinstance(dets, np.ndarray)
        assert dets.dtype == np.float32
        np.testing.assert_array_equal(dets[:, :4], inputs["boxes"][kept])
    groups = nms_match(np.concatenate([inputs["boxes"], inputs["scores"][:, None]], 1), 0.5)
    assert sorted(np.concatenate(groups).tolist()) == list(range(50))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_sigmoid_focal_loss_equals_that_of_mmdet_in_python(reduction):
    from mmcv.ops import SigmoidFocalLoss
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    target = torch.tensor([0, 1, 2, 3, 1])  # 3 is background
    logits = torch.randn(5, 3, requires_grad=True)
    loss = SigmoidFocalLoss(gamma=2.0, alpha=0.25, reduction=reduction)(logits, target)
    one_hot = torch.nn.functional.one_hot(target, 4)[:, :3]
    expected = py_sigmoid_focal_loss(logits, one_hot, reduction="none" if reduction == "none" else "sum")
    expected = expected / 5 if reduction == "mean" else expected  # mmcv's mean divides by the rows
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_softmax_focal_loss_without_focus_is_weighted_cross_entropy():
    from mmcv.ops import SoftmaxFocalLoss

    logits, target = torch.randn(6, 4, requires_grad=True), torch.tensor([0, 1, 2, 3, 1, 0])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss = SoftmaxFocalLoss(gamma=0.0, alpha=1.0, weight=weight, reduction="sum")(logits, target)
    expected = torch.nn.functional.cross_entropy(logits, target, weight=weight, reduction="sum")
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["RoIAlign", "RoIPool"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_regions_of_a_linear_ramp_and_their_gradient(name, dtype):
    import mmcv.ops

    ramp = torch.arange(16.0).expand(2, 1, 16, 16).to(dtype).requires_grad_()
    rois = torch.tensor([[1.0, 4.0, 4.0, 12.0, 12.0]]).to(dtype)
    pooled = getattr(mmcv.ops, name)(2, spatial_scale=1.0)(ramp, rois)
    # Averages of columns 4 to 7 and 8 to 11; the greatest of bins of 4.5 columns that begin at 4.
    expected = {"RoIAlign": [5.5, 9.5], "RoIPool": [8.0, 12.0]}[name]
    assert pooled.dtype == dtype
    assert pooled.squeeze().tolist() == [expected, expected]
    pooled.sum().backward()
    assert ramp.grad.dtype == dtype
    assert ramp.grad[0].sum() == 0
    assert ramp.grad[1].sum() == 4


def test_roi_align_runs_under_autocast():
    from mmcv.ops import RoIAlign

    features, rois = torch.randn(1, 2, 8, 8, requires_grad=True), torch.tensor([[0.0, 0.0, 0.0, 8.0, 8.0]])
    with torch.autocast("cpu", torch.bfloat16):
        half = torch.nn.functional.conv2d(features, torch.ones(2, 2, 1, 1))
        assert half.dtype == torch.bfloat16
        pooled = RoIAlign(2)(half, rois.to(half))
    assert pooled.dtype == torch.bfloat16
    pooled.float().sum().backward()
    assert features.grad.sum().item() == pytest.approx(2 * 2 * 4, rel=1e-2)


def test_it_is_what_is_installed(extension):
    import mmcv._ext

    if mmcv._ext.__file__.endswith(tuple(EXTENSION_SUFFIXES)):
        pytest.skip("a compiled mmcv takes the place of cvplugins-mmcv-ops: its operators were tested here")
    assert mmcv._ext.get_compiler_version() == extension.get_compiler_version()
