"""docs/hooks describes every hook on a page, its configs build, and the links of all pages lead on."""

import re

import pytest
from doc_pages import DOCS, anchors, blocks

openmmlab = pytest.mark.openmmlab
INDEX = (DOCS / "hooks" / "index.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "hooks").glob("*.md") if path.stem != "index"}
# Not about one of OpenMMLab's hooks of ours.
OTHERS = {"Optimizers.md", "Detectron2.md", "Upstream.md"}
# The introduction of the page on operators is a part of that page, and links from there.
PLACES = [
    *set(DOCS.rglob("*.md")) - {DOCS / "operators" / "introduction.md"},
    *(DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
]


def described(text):
    return re.findall(r"^##? (\w+)$", text, re.MULTILINE)


def in_the_reference(adapter):
    return set(re.findall(r"^::: (\S+)$", (DOCS / "api" / f"{adapter}.md").read_text(encoding="utf-8"), re.MULTILINE))


@openmmlab
def test_every_hook_has_a_section_and_a_link_in_the_index():
    from cvplugins.registry import HOOKS

    names = set(HOOKS.names())
    assert names <= {hook for text in PAGES.values() for hook in described(text)}
    links = dict(re.findall(r"\[`(\w+)`\]\((\w+\.md)[#\w]*\)", INDEX))
    assert names <= set(links)
    for name, page in links.items():
        assert name in described(PAGES[page]), f"{name} is not on {page}"


@openmmlab
def test_every_module_of_openmmlabs_hooks_and_metrics_is_in_the_reference():
    """The oracle is where mmengine looks; the modules of losses and norms stand with the core's."""
    from cvplugins import registry

    modules = {kind.get(name).__module__ for kind in (registry.HOOKS, registry.METRICS) for name in kind.names()}
    assert modules <= in_the_reference("openmmlab")


@pytest.mark.detectron2
def test_every_hook_of_detectron2_is_exported_and_on_the_pages():
    """The oracle is the list that ``CVPLUGINS.HOOKS`` reads."""
    import cvplugins.detectron2
    from cvplugins.detectron2.hooks.named import HOOKS

    hooks = dict(HOOKS)
    assert set(hooks) <= set(cvplugins.detectron2.__all__)
    shown = "\n".join(block for text in PAGES.values() for block in blocks(text, "yaml"))
    assert [name for name in hooks if f"type: {name}" not in shown] == []
    assert {hook.__module__ for hook in hooks.values()} <= in_the_reference("detectron2")


@openmmlab
def test_every_page_is_about_something_that_exists():
    from cvplugins.registry import HOOKS, TASK_UTILS

    known = {*HOOKS.names(), *TASK_UTILS.names()}
    assert [name for name, text in PAGES.items() if name not in OTHERS and not known & set(described(text))] == []
    for name in PAGES:
        assert f"({name}" in INDEX, f"the index does not link {name}"


@openmmlab
@pytest.mark.parametrize("page", ["index.md", *sorted(PAGES)])
def test_configs_build(page):
    """Each hook of ours that a snippet names takes the options given there."""
    from mmengine.config import Config
    from mmengine.registry import HOOKS

    for block in blocks((DOCS / "hooks" / page).read_text(encoding="utf-8"), "python"):
        if block.startswith("from "):  # code, not a config
            continue
        config = Config.fromstring(block, ".py")
        for hook in [*config.get("custom_hooks", []), *config.get("default_hooks", {}).values()]:
            if str(hook.get("type", "")).startswith("cvplugins."):
                HOOKS.build(hook)


@pytest.mark.detectron2
@pytest.mark.parametrize("page", ["index.md", *sorted(PAGES)])
def test_keys_of_detectron2_are_valid(page):
    import yaml
    from detectron2.config import CfgNode
    from small_detectron2 import small_config

    from cvplugins.detectron2 import validate_cvplugins_config

    for block in blocks((DOCS / "hooks" / page).read_text(encoding="utf-8"), "yaml"):
        cfg = small_config("fpn")
        cfg.TEST.EVAL_PERIOD = 10
        cfg.DATASETS.TEST = ("cvplugins_voc_2007_test",)
        cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(block)))
        validate_cvplugins_config(cfg)


@pytest.mark.parametrize("page", sorted(PLACES), ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(
        r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    ):
        if "://" in target:
            continue
        path = (page.parent / target) if target else page
        assert path.exists(), target
        if anchor and not anchor.startswith("cvplugins."):  # those of the reference are checked when the site is built
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{target}#{anchor}"
