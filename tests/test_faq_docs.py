"""docs/faq.md: each message is one of ours, or stands in the file of the framework that the page names."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from doc_pages import DOCS, sections
from skips import is_installed

ENTRIES = sections((DOCS / "faq.md").read_text(encoding="utf-8"), 3)
FOREIGN = {  # of compiled code, of Python, of the system and of the original distributions
    "`MMCV==… is used but incompatible`",
    "`No module named 'mmcv._ext'`",
    "`matrix contains invalid numeric entries`",
    "`CUDA out of memory`",
    "`Expected to have finished reduction in the prior iteration before starting a new one`",
    "`Address already in use`",
    "`received 0 items of ancdata`, `Too many open files`, `Bus error`",
}


def source(text):
    found = re.match(r"\s*From `([\w/]+\.py)`\.", text)
    return found and found[1]


@pytest.fixture(scope="module")
def own_texts(root):
    """Every text of the package, f-strings with the values left out and parts in adjacent lines joined."""
    texts = []
    for path in (root / "cvplugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def fragments(heading):
    return [part.strip() for part in heading[1:-1].split("…") if part.strip()]


@pytest.mark.parametrize("heading", [heading for heading, text in ENTRIES.items() if not source(text)])
def test_message_is_one_of_ours(heading, own_texts):
    if heading not in FOREIGN:
        for part in fragments(heading):
            assert any(part in text for text in own_texts), part


@pytest.mark.parametrize(
    ("heading", "file"), [(heading, source(text)) for heading, text in ENTRIES.items() if source(text)]
)
def test_message_stands_in_the_file_of_the_framework(heading, file):
    package = file.partition("/")[0]
    if not is_installed(package):
        pytest.skip(f"{package} is not installed")
    text = (Path(importlib.util.find_spec(package).origin).parents[1] / file).read_text(encoding="utf-8")
    texts = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    joined = " ".join(" ".join(str(text).split()) for text in texts)
    assert all(part in joined for part in fragments(heading.replace("CVPLUGINS", ""))), heading


def test_foreign_messages_are_on_the_page():
    assert set(ENTRIES) >= FOREIGN
