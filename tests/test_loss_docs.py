"""docs/losses.md says what is true: each loss has a section, its configs build and run, its calls run."""

import re

import pytest
import torch
from doc_pages import DOCS, anchors, blocks, labelled, sections
from torch import nn

from cvplugins.detectron2.models.losses import PLACES, WRAPPERS
from cvplugins.losses import LOSSES, WeightPenalty

openmmlab = pytest.mark.openmmlab
PAGE = (DOCS / "losses.md").read_text(encoding="utf-8")
SECTIONS = {name: text for name, text in sections(PAGE, 3).items() if name.isidentifier()}
SNIPPETS = {name: labelled(text) for name, text in SECTIONS.items()}
KNOWN = {loss.__name__ for loss in (*LOSSES, WeightPenalty)}
OWN_LOOP = "Your own training loop"


def snippets(*labels):
    return [
        pytest.param(label, name, id=f"{name}-{label}")
        for name, found in SNIPPETS.items()
        for label in labels
        if label in found
    ]


def introduction(language):
    """The blocks of the part before the sections of the losses."""
    return blocks(PAGE.partition("## Overview")[0], language)


def test_every_loss_has_one_section_and_one_line_in_the_overview():
    assert set(SECTIONS) == KNOWN
    assert len(re.findall(r"^### [A-Z]\w+$", PAGE, re.MULTILINE)) == len(KNOWN)
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", PAGE, re.MULTILINE)) == sorted(KNOWN)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_when_to_take_the_loss_what_it_takes_and_where_it_goes(name):
    for part in ("```math", "**When:**", "**When not:**", "**Prediction:**", "**Target:**"):
        assert part in SECTIONS[name], part
    assert f"(api/losses.md#cvplugins.losses.{name})" in SECTIONS[name]
    reasons = " ".join(re.findall(r"^\*\*([^*]+):\*\* ", SECTIONS[name], re.MULTILINE))
    for framework in ("mmdet", "mmseg", "Detectron2"):
        assert (framework in SNIPPETS[name]) != (framework in reasons), framework


def test_every_loss_that_a_head_of_detectron2_takes_shows_its_key():
    """The oracle is what the places of ``CVPLUGINS.LOSSES`` accept."""
    taken = {loss.__name__ for place in PLACES.values() for loss in (*place.accepted, *WRAPPERS)}
    assert {name for name, found in SNIPPETS.items() if "Detectron2" in found} == taken
    assert all("CVPLUGINS:" in found["Detectron2"] for found in SNIPPETS.values() if "Detectron2" in found)


def parsed(snippet):
    from mmengine.config import Config

    from cvplugins.openmmlab.upstream import make_mmseg_configs_reachable

    make_mmseg_configs_reachable()
    return Config.fromstring(snippet, ".py").model


def losses_in(model, name):
    from cvplugins.openmmlab.run.config import walk_dicts

    return [node for node in walk_dicts(model) if node.get("type") == f"cvplugins.{name}"]


@openmmlab
@pytest.mark.parametrize(("framework", "name"), snippets("mmdet", "mmseg"))
def test_config_builds_the_loss_it_documents_and_its_head_runs(framework, name):
    from mmengine.registry import MODELS, DefaultScope

    import cvplugins.losses

    torch.manual_seed(0)
    model = parsed(SNIPPETS[name][framework])
    (config,) = losses_in(model, name)
    (head,) = [key for key in RUN if losses_in(model.get(key, {}), name)]
    with DefaultScope.overwrite_default_scope(framework):
        assert type(MODELS.build(dict(config)).loss) is getattr(cvplugins.losses, name)
        features, losses = RUN[head](model)
    terms = [term for key, value in losses.items() if "loss" in key for term in as_list(value)]
    total = torch.stack([term.sum() for term in terms]).sum()
    total.backward()
    assert total.isfinite()
    assert any(feature.grad.abs().sum() > 0 for feature in as_list(features) if feature.grad is not None)


def as_list(value):
    return value if isinstance(value, list) else [value]


def pyramid(strides, channels=256):
    return [torch.randn(2, channels, 96 // s + 1, 128 // s + 1).requires_grad_() for s in strides]


def samples(masks=False, labels=None):
    from small_models import batch

    found = batch(masks)["data_samples"]
    for each in found:
        each.set_metainfo(dict(pad_shape=each.batch_input_shape))
        if labels is not None:
            each.gt_instances.labels = torch.full_like(each.gt_instances.labels, labels)
    return found


def dense_head(model):
    from mmdet.registry import MODELS

    features = pyramid((8, 16, 32, 64, 128))
    head = MODELS.build(dict(model.bbox_head, train_cfg=model.train_cfg, test_cfg=model.test_cfg))
    return features, head.loss(features, samples())


def proposal_head(model):
    from mmdet.registry import MODELS

    features = pyramid((4, 8, 16, 32, 64))
    head = MODELS.build(dict(model.rpn_head, num_classes=1, train_cfg=model.train_cfg.rpn, test_cfg=model.test_cfg.rpn))
    return features, head.loss(features, samples(labels=0))


def box_head(model):
    from mmdet.registry import MODELS
    from mmengine.structures import InstanceData

    features = pyramid((4, 8, 16, 32))
    model.roi_head.bbox_head.fc_out_channels = 16
    head = MODELS.build(dict(model.roi_head, train_cfg=model.train_cfg.rcnn, test_cfg=model.test_cfg.rcnn))
    boxes = torch.tensor([[12.0, 8.0, 62.0, 58.0], [28.0, 8.0, 88.0, 82.0], [60.0, 60.0, 90.0, 90.0]])
    proposals = [InstanceData(bboxes=boxes, labels=torch.zeros(3).long(), scores=torch.ones(3)) for _ in range(2)]
    return features, head.loss(features, proposals, samples())


def query_head(model):
    from mmdet.registry import MODELS

    channels = {4: 8, 8: 8, 16: 8, 32: 8}
    features = [each for stride, width in channels.items() for each in pyramid((stride,), width)]
    head = model.panoptic_head
    head.update(in_channels=list(channels.values()), num_queries=5)
    head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 1
    model.train_cfg.num_points = 64
    head = MODELS.build(dict(head, train_cfg=model.train_cfg, test_cfg=model.test_cfg))
    return features, head.loss(features, samples(masks=True))


def decode_head(model):
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    options = dict(in_channels=4, channels=4, norm_cfg=dict(type="BN"), in_index=0, dropout_ratio=0)
    head = MODELS.build(dict(model.decode_head, **options))
    features = torch.randn(2, 4, 8, 8).requires_grad_()
    label = torch.randint(0, 21, (1, 8, 8))
    label[:, 0] = 255
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    return features, head.loss([features], [sample, sample], None)


def embedding_head(model):
    """Only the call, as in mmdet's LinearReIDHead, which needs mmpretrain."""
    from mmengine.registry import MODELS

    features = torch.randn(6, 8).requires_grad_()
    loss = MODELS.build(dict(model.head.loss_triplet))
    return features, {"triplet_loss": loss(features, torch.tensor([0, 0, 1, 1, 2, 2]))}


RUN = {
    "bbox_head": dense_head,
    "rpn_head": proposal_head,
    "roi_head": box_head,
    "panoptic_head": query_head,
    "decode_head": decode_head,
    "head": embedding_head,
}


def tensors():
    """What the calls are given, under the names of the page, and which of it is predicted."""
    torch.manual_seed(0)
    predicted = dict(
        scores=torch.randn(6, 5),
        fg_pred_deltas=torch.randn(3, 4),
        pred_boxes=torch.rand(3, 4) + torch.tensor([0.0, 0.0, 2.0, 2.0]),
        predictions=torch.randn(2, 4, 9, 8),
        pred_mask_logits=torch.randn(3, 7, 7),
        features=torch.randn(6, 16),
        images=torch.rand(2, 3, 176, 176),
    )
    for leaf in predicted.values():
        leaf.requires_grad_()
    levels = [torch.randn(2, size, 5).requires_grad_() for size in (8, 4)]
    labels = torch.randint(0, 4, (2, 9, 8))
    labels[:, 0] = 255
    given = dict(
        gt_classes=torch.tensor([0, 1, 3, 4, 4, 4]),
        gt_deltas=torch.randn(3, 4),
        gt_boxes=torch.rand(3, 4) + torch.tensor([0.0, 0.0, 2.0, 2.0]),
        targets=labels,
        gt_masks=torch.randint(0, 2, (3, 7, 7)).float(),
        target_features=torch.randn(6, 16),
        labels=torch.tensor([0, 0, 1, 1, 2, 2]),
        target_images=torch.rand(2, 3, 176, 176),
        gt_labels=torch.randint(-1, 6, (2, 12)),
        normalizer=3.0,
        pred_logits=levels,
        cat=torch.cat,
        discriminator=nn.Conv2d(3, 1, 4, stride=4),
        model=nn.Linear(3, 2),
    )
    return predicted | given, [*predicted.values(), *levels, given["model"].weight]


@pytest.mark.detectron2
@pytest.mark.parametrize(("label", "name"), snippets("Detectron2"))
def test_key_of_detectron2_puts_the_loss_into_a_model_that_trains(label, name, tmp_path):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from small_detectron2 import batch, losses_and_gradients, small_config

    import cvplugins.losses
    from cvplugins.detectron2 import add_cvplugins_config, validate_cvplugins_config

    snippet = SNIPPETS[name][label]
    kinds = {"MASK_HEAD": "mask", "RetinaNet": "retinanet"}
    kind = next((kind for word, kind in kinds.items() if word in snippet), "fpn")
    (tmp_path / "small.yaml").write_text(small_config(kind, ours=False).dump())
    (tmp_path / "loss.yaml").write_text(f"_BASE_: small.yaml\n{snippet}")
    cfg = get_cfg()
    add_cvplugins_config(cfg)
    cfg.merge_from_file(str(tmp_path / "loss.yaml"))
    validate_cvplugins_config(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    assert any(type(module) is getattr(cvplugins.losses, name) for module in model.modules())
    losses, gradients, _ = losses_and_gradients(model, batch())
    assert all(loss.isfinite() for loss in losses.values())
    assert any(gradient.abs().sum() > 0 for gradient in gradients.values())


@pytest.mark.parametrize(("label", "name"), snippets(OWN_LOOP))
def test_call_runs_and_its_gradient_reaches_the_prediction(label, name):
    snippet = SNIPPETS[name][label]
    if "vgg" in snippet:
        pytest.importorskip("torchvision")
    names, leaves = tensors()
    exec(snippet, names)
    names["loss"].backward()
    assert names["loss"].isfinite()
    reached = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert reached
    assert all(gradient.isfinite().all() for gradient in reached)
    assert any(gradient.abs().sum() > 0 for gradient in reached)


@openmmlab
def test_composite_of_the_introduction_runs_in_its_head():
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        _, losses = box_head(parsed(introduction("python")[0]))
    assert losses["loss_cls"].isfinite()


@pytest.mark.detectron2
def test_config_of_the_introduction_builds_its_losses(tmp_path, monkeypatch):
    from small_detectron2 import small_config

    from cvplugins.losses import BoxIoULoss, FocalLoss

    (text,) = introduction("yaml")
    (tmp_path / "small.yaml").write_text(small_config("fpn", ours=False).dump())
    (tmp_path / "focal.yaml").write_text(f"_BASE_: small.yaml\n{text}")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(introduction("python")[1], names)
    from detectron2.modeling import build_model

    model = build_model(names["cfg"])
    assert isinstance(model.roi_heads.box_predictor.cls_loss.loss, FocalLoss)
    assert isinstance(model.roi_heads.box_predictor.box_loss.loss, BoxIoULoss)
    assert model.proposal_generator.cls_loss.use_sigmoid


@pytest.mark.detectron2
def test_example_for_detectron2_trains():
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import build_roi_heads
    from detectron2.structures import Boxes, ImageList, Instances
    from detectron2.utils.events import EventStorage

    names = {}
    exec(introduction("python")[2], names)
    config = get_cfg()
    config.MODEL.ROI_HEADS.NAME = "FocalROIHeads"
    config.MODEL.ROI_HEADS.NUM_CLASSES = 3
    config.MODEL.ROI_BOX_HEAD.update(NAME="FastRCNNConvFCHead", NUM_FC=1, FC_DIM=8, POOLER_RESOLUTION=2)
    heads = build_roi_heads(config, {"res4": ShapeSpec(channels=4, stride=16)})
    assert type(heads.box_predictor) is names["FocalOutputLayers"]
    boxes = torch.tensor([[10.0, 10.0, 60.0, 60.0], [30.0, 5.0, 60.0, 64.0]])
    target = Instances((64, 64), gt_boxes=Boxes(boxes), gt_classes=torch.tensor([0, 2]))
    proposal = Instances((64, 64), proposal_boxes=Boxes(boxes + 3), objectness_logits=torch.zeros(2))
    features = torch.randn(1, 4, 4, 4).requires_grad_()
    with EventStorage():
        images = ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
        _, losses = heads(images, {"res4": features}, [proposal], [target])
    assert set(losses) == {"loss_cls", "loss_box_reg"}
    for loss in losses.values():
        assert loss.isfinite()
        (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_links_within_the_page_lead_on():
    assert {link[1:] for link in re.findall(r"\]\((#[^)]+)\)", PAGE)} <= anchors(PAGE)


def test_references_are_those_of_the_code(root):
    code = "".join(path.read_text() for path in (root / "cvplugins" / "losses").glob("*.py"))
    for name, text in SECTIONS.items():
        for number in re.findall(r"\[(arXiv:[\d.]+)\]", text):
            assert number in code, f"{name}: {number}"
