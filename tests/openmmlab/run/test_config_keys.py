"""No config of the installed zoos has a top-level name that would be refused; the oracle is what upstream ships."""

import re
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.openmmlab


@pytest.mark.parametrize("package", ["mmdet", "mmseg"])
def test_no_name_of_the_zoo_is_taken_for_a_slip(package):
    from cvplugins.misspelt import slip_of
    from cvplugins.openmmlab.run.config_keys import KEYS, SURE, _is_used

    folder = Path(find_spec(package).origin).parent / ".mim" / "configs"
    texts = defaultdict(list)
    for path in folder.rglob("*.py"):
        text = path.read_text()
        for name in set(re.findall(r"^(\w+)\s*=", text, re.MULTILINE)) - set(KEYS):
            texts[name].append(text)
    assert len(texts) > 20
    doubted = [name for name in texts if len(name) >= SURE and slip_of(name, KEYS)]
    assert [name for name in doubted if not all(_is_used(name, text) for text in texts[name])] == []
