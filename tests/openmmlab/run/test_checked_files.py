"""A file of annotations that a dataset and its metrics read is checked once a start; counted by the calls."""

import pytest

pytestmark = pytest.mark.openmmlab


def test_a_file_is_checked_again_only_for_more_or_when_it_changes(tmp_path, monkeypatch):
    from cvplugins.openmmlab.data import coco_checks

    calls = []
    monkeypatch.setattr(coco_checks, "check_coco_file", lambda path, **options: calls.append(options["masks"]))
    coco_checks.forget_checks()
    path = tmp_path / "instances.json"
    path.write_text("{}")
    coco_checks.check_once(path, "needed", ("area",))
    coco_checks.check_once(path, "unread")  # less than what has passed
    assert calls == ["needed"]
    coco_checks.check_once(path, "evaluated")
    coco_checks.check_once(path, "unread", ("area", "iscrowd"))
    assert calls == ["needed", "evaluated", "unread"]
    path.write_text("{ }")
    coco_checks.check_once(path, "needed")
    coco_checks.forget_checks()
    coco_checks.check_once(path, "needed")
    assert calls[3:] == ["needed", "needed"]
