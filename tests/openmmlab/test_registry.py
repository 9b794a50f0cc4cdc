"""Our types resolve from every scope and from upstream's own tools, and a wrong name is answered well."""

import pytest
from tool_runs import run_code

pytestmark = pytest.mark.openmmlab

LOSS = dict(type="cvplugins.FocalLoss", use_sigmoid=True)
KINDS = ("MODELS", "METRICS", "HOOKS", "MODEL_WRAPPERS", "DATA_SAMPLERS", "OPTIMIZERS", "TASK_UTILS")


def build_in_new_process(root, scope, imports):
    """Build a loss in a process where no plugin has been imported before; mmcv's operators import the core."""
    code = f"""
        import sys
        assert not [name for name in sys.modules if name.startswith(("cvplugins.openmmlab", "cvplugins.registry"))]
        from mmengine.config import Config
        from mmengine.registry import init_default_scope, MODELS
        config = Config.fromstring({f"default_scope = {scope!r}" + chr(10) + imports!r}, '.py')
        if {scope!r} != 'mmengine':
            import {scope}.registry
        init_default_scope({scope!r})
        registry = {f"{scope}.registry.MODELS" if scope != "mmengine" else "MODELS"}
        print(type(registry.build({LOSS!r})).__module__)
    """
    return run_code(root, code).split()[-1]


@pytest.mark.parametrize("scope", ["mmengine", "mmdet", "mmseg"])
@pytest.mark.parametrize("imports", ["", "custom_imports = dict(imports=['cvplugins'])"])
def test_resolves_from_every_scope(root, scope, imports):
    assert build_in_new_process(root, scope, imports) == "cvplugins.openmmlab.models.losses"


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_name_is_answered_with_the_closest(kind):
    import mmengine.registry

    from cvplugins import registry

    right = getattr(registry, kind).names()[0]
    with pytest.raises(KeyError, match=f"did you mean .*{right}"):
        getattr(mmengine.registry, kind).get(f"cvplugins.{right}x")


def test_wrong_name_unlike_any_lists_all():
    from cvplugins.registry import MODELS

    with pytest.raises(KeyError, match=r"there are: .*FocalLoss"):
        MODELS.get("Zzz")


def test_every_plugin_stands_in_the_tables_of_all_plugins(root):
    from cvplugins import registry

    page = (root / "docs" / "plugins.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip(" `") for row in rows for name in row.split(",")}
    assert {name for kind in KINDS for name in getattr(registry, kind).names()} <= listed


def test_nested_config_of_a_plugin_resolves_in_the_default_scope():
    from mmengine.registry import MODELS, DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        assert MODELS.get("cvplugins.FocalLoss").__module__ == "cvplugins.openmmlab.models.losses"
        assert MODELS.switch_scope_and_registry("mmdet")


def test_base_configs_of_mmseg_are_found(tmp_path):
    from cvplugins.openmmlab.run.config import load_config

    path = tmp_path / "config.py"
    path.write_text("_base_ = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'\n")
    assert load_config(path).model.type == "EncoderDecoder"


@pytest.mark.parametrize("name", ["EMAHook", "CheckpointHook"])
def test_what_mmengine_has_is_not_ours(name):
    """The parent registry would answer with mmengine's class, which has other options than a user expects of ours."""
    from mmengine.registry import HOOKS

    import cvplugins.registry

    with pytest.raises(KeyError, match=f"cvplugins has no hook named '{name}', but mmengine has; write type='{name}'"):
        HOOKS.build({"type": f"cvplugins.{name}"})
    with cvplugins.registry.HOOKS.switch_scope_and_registry("cvplugins"):
        assert cvplugins.registry.HOOKS.get(name).__module__.startswith("mmengine.")
