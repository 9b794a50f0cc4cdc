"""What the table and the figure of a tracking result say."""

from xml.etree import ElementTree

import numpy as np
import pytest
from tracking_cases import evaluate, random_frames

from cvplugins.metrics import TrackedFrame
from cvplugins.reporting import draw_tracking_figure, tracking_table


def test_table_has_a_line_for_each_sequence_and_class():
    result = evaluate(random_frames(1))
    lines = tracking_table(result).splitlines()
    titles = [line[:11].strip() for line in lines]
    assert titles == ["sequence", "s0", "s1", "s2", "all, car", "all, person", "all, never", "all"]
    last = dict(zip(lines[0].split(), lines[-1].split(), strict=True))
    measures = result.measures()
    assert last["MOTA"] == f"{100 * measures['MOTA']:.1f}"
    assert last["IDSW"] == f"{measures['IDSW']:.0f}"
    assert last["FPS"] == f"{measures['FPS']:.1f}"
    assert "-" in lines[-2].split()  # no object of this class
    assert len({len(line) for line in lines}) == 1


def test_table_of_nothing():
    assert tracking_table(evaluate([], ["car"])).splitlines()[1].split()[:3] == ["all", "0", "-"]


def test_figure_is_written_in_both_formats(tmp_path):
    pytest.importorskip("matplotlib")
    draw_tracking_figure(evaluate(random_frames(1)), tmp_path / "a.png", tmp_path / "a.svg", sequence="s1")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert len(list(tmp_path.iterdir())) == 2


def test_figure_refuses_an_unknown_sequence(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="there is no sequence 'x'; there are: s0, s1, s2"):
        draw_tracking_figure(evaluate(random_frames(1)), tmp_path / "a.png", sequence="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 1, 100])
def test_figure_of_no_and_of_many_tracks(tmp_path, count):
    pytest.importorskip("matplotlib")
    boxes = np.tile([0.0, 0, 9, 9], (count, 1)) + 10 * np.arange(count)[:, None]
    frames = [TrackedFrame("a", 1, range(count), boxes, range(count), boxes)] if count else []
    draw_tracking_figure(evaluate(frames, ["car"]), tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
