"""docs/hooks.md is up to date, describes every hook, and its configs build."""

import re
import sys

import pytest

openmmlab = pytest.mark.openmmlab


@openmmlab
def test_page_is_up_to_date(root):
    import make_hooks

    assert (root / "docs" / "hooks.md").read_text() == make_hooks.page(), "run python docs/make_hooks.py"


@openmmlab
def test_check_finds_an_old_page(tmp_path, monkeypatch):
    import make_hooks

    monkeypatch.setattr(make_hooks, "PAGE", tmp_path / "hooks.md")
    for option, code in (("--check", 1), ("", 0), ("--check", 0)):
        monkeypatch.setattr(sys, "argv", ["make_hooks.py", *([option] if option else [])])
        assert make_hooks.main() == code


@openmmlab
def test_missing_and_strange_pages_are_named(tmp_path, monkeypatch):
    import make_hooks

    monkeypatch.setattr(make_hooks, "PARTS", tmp_path)
    (tmp_path / "introduction.md").write_text("# Hooks")
    with pytest.raises(ValueError, match=r"describes nowhere: .*TrainingPlanHook"):
        make_hooks.page()
    everything = "\n".join(f"## {name}" for name in make_hooks.HOOKS.names())
    (tmp_path / "all.md").write_text(everything)
    (tmp_path / "odd.md").write_text("## NoHook")
    with pytest.raises(ValueError, match=r"odd\.md has no section"):
        make_hooks.page()


@openmmlab
def test_configs_of_the_page_build(root):
    """Each hook that a snippet names takes the options given there."""
    from mmengine.config import Config
    from mmengine.registry import HOOKS

    built = set()
    for block in re.findall(r"```python\n(.*?)```", (root / "docs" / "hooks.md").read_text(), re.DOTALL):
        if block.startswith("from detectron2"):  # code, not a config
            continue
        config = Config.fromstring(block, ".py")
        hooks = [*config.get("custom_hooks", []), *config.get("default_hooks", {}).values()]
        for hook in hooks:
            if str(hook.get("type", "")).startswith("cvplugins."):
                HOOKS.build(hook)
                built.add(hook.type.removeprefix("cvplugins."))
    assert built >= {"GradientHealthHook", "ValidationLoss", "AtomicCheckpointHook"}


def test_links_of_all_pages_lead_to_files(root):
    """Pictures too; the pages in docs/hooks are parts of docs/hooks.md, and link from there."""
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links {target}"
