"""The rules of a config, read without Detectron2."""

import pytest

from cvplugins.detectron2.models.norm import apply_norm_policy, norm_rules
from cvplugins.errors import UserError
from cvplugins.norm import NormRule


@pytest.mark.parametrize("node", [{}, {"NORM": {}}, {"NORM": {"rules": []}}, {"NORM": {"rules": None}}])
def test_without_rules_nothing_is_done(node):
    assert norm_rules({"CVPLUGINS": node}) == ()
    assert apply_norm_policy({"CVPLUGINS": node}, None) is None


def test_rules_as_openmmlab_takes_them():
    node = {"rules": ({"to": "FrozenBN", "names": ("backbone.*",)}, {"to": "GN", "num_groups": 4})}
    expected = (NormRule("FrozenBN", ("backbone.*",)), NormRule("GN", num_groups=4))
    assert norm_rules({"CVPLUGINS": {"NORM": node}}) == expected


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("SyncBN", r"CVPLUGINS\.NORM is 'SyncBN'; give a dict such as \{rules:"),
        ({"rule": []}, r"CVPLUGINS\.NORM has no key rule; it has rules"),
        ({"rules": [{"to": "SyncBatchNorm"}]}, "rule 0: unknown to 'SyncBatchNorm'; use one of 'SyncBN'"),
        ({"rules": [{"name": "*", "to": "BN"}]}, "rule 0 has no option 'name'; did you mean names"),
        ({"rules": {"to": "SyncBN"}}, "rules is .*; give a list"),
    ],
)
def test_mistakes(node, message):
    with pytest.raises(UserError, match=message):
        norm_rules({"CVPLUGINS": {"NORM": node}})
