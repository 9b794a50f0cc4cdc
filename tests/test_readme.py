"""README.md is short, and its snippets for the three frameworks build."""

import pytest
from doc_pages import DOCS, blocks, sections

README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
IN_YOUR_CONFIG = sections(README, 2)["Use it in your config"]


def test_is_short_enough_to_be_read():
    assert len(README.encode()) <= 9000


@pytest.mark.openmmlab
@pytest.mark.parametrize(("number", "scope"), [(0, "mmdet"), (1, "mmseg")])
def test_snippets_of_openmmlab_build(number, scope):
    from mmengine.config import Config
    from mmengine.registry import HOOKS, METRICS, MODELS, DefaultScope

    from cvplugins.openmmlab.run.config import walk_dicts
    from cvplugins.openmmlab.upstream import make_mmseg_configs_reachable

    make_mmseg_configs_reachable()
    config = Config.fromstring(blocks(IN_YOUR_CONFIG, "python")[number], ".py")
    built = []
    with DefaultScope.overwrite_default_scope(scope):
        for key, registry in (("model", MODELS), ("custom_hooks", HOOKS), ("val_evaluator", METRICS)):
            for node in walk_dicts(config.get(key)):
                if str(node.get("type", "")).startswith("cvplugins."):
                    built.append(type(registry.build(dict(node))).__name__)
    assert len(built) == 3


@pytest.mark.detectron2
def test_snippet_of_detectron2_builds_its_loss_and_hook(tmp_path):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from small_detectron2 import small_config

    from cvplugins.detectron2 import add_cvplugins_config, build_cvplugins_hooks, validate_cvplugins_config
    from cvplugins.losses import FocalLoss

    (snippet,) = blocks(IN_YOUR_CONFIG, "yaml")
    (tmp_path / "small.yaml").write_text(small_config("fpn", ours=False).dump())
    (tmp_path / "yours.yaml").write_text(f"_BASE_: small.yaml\n{snippet}")
    cfg = get_cfg()
    add_cvplugins_config(cfg)
    cfg.merge_from_file(str(tmp_path / "yours.yaml"))
    validate_cvplugins_config(cfg)
    assert isinstance(build_model(cfg).roi_heads.box_predictor.cls_loss.loss, FocalLoss)
    assert [type(hook).__name__ for hook in build_cvplugins_hooks(cfg)] == ["EMAHook"]
