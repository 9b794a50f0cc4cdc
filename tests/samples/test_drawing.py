"""Samples that appear where a config looks for them. Oracle: what is in the folder before and after."""

from pathlib import Path

import pytest

import cvplugins.samples.voc as generator
from cvplugins.errors import UserError
from cvplugins.samples.drawing import SAMPLES, draw_missing, draw_sample

pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder, with a generator that draws 3 splits of 4 images."""
    monkeypatch.chdir(tmp_path)
    few = tuple((year, split, 4, id_format, first) for year, split, _, id_format, first in generator.SPLITS)
    monkeypatch.setattr(generator, "SPLITS", few)


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def test_the_folders_are_those_of_the_embedded_samples(root):
    for sample in SAMPLES.values():
        assert len(list((root / sample.folder).rglob("*.jpg"))) == sample.images


@pytest.mark.parametrize("folder", ["data/sample/VOCdevkit", "data/sample/VOCdevkit/"])
def test_a_missing_sample_is_drawn_once_and_announced_in_one_line(folder, capsys):
    draw_missing(folder)
    said = capsys.readouterr().err
    assert said.startswith(f"{folder} does not exist: drawing the sample")
    assert "cvplugins sample voc" in said
    assert said.count("\n") == 1
    draw_sample("voc", "again")
    assert files(folder) == files("again")
    draw_missing(folder)
    assert capsys.readouterr().err == ""
    assert files(folder) == files("again")


def test_other_folders_are_left_alone(tmp_path):
    for folder in ("", ".", "data/VOCdevkit", "data/sample", "elsewhere/data/sample/VOCdevkit"):
        draw_missing(folder)
    assert list(tmp_path.iterdir()) == []
    own = tmp_path / "data" / "sample" / "VOCdevkit"
    own.mkdir(parents=True)
    (own / "half.jpg").touch()
    draw_missing("data/sample/VOCdevkit")
    assert list(own.iterdir()) == [own / "half.jpg"]


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/sample cannot be made: .*; choose another folder"):
        draw_sample("voc", "file/sample")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_drawing_leaves_no_half_sample(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generator, "_to_xml", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_missing("data/sample/VOCdevkit")
    assert not Path("data/sample/VOCdevkit").exists()
    monkeypatch.undo()


def test_of_two_processes_that_draw_at_once_the_first_stays(monkeypatch):
    draw_sample("voc", "first")
    write = generator._write_split

    def write_late(*arguments):
        write(*arguments)
        if Path("first").exists():
            Path("first").rename("data/sample/VOCdevkit")
            Path("data/sample/VOCdevkit", "of_the_first").touch()

    monkeypatch.setattr(generator, "_write_split", write_late)
    draw_missing("data/sample/VOCdevkit")
    assert Path("data/sample/VOCdevkit/of_the_first").is_file()
    assert [path.name for path in Path("data/sample").iterdir()] == ["VOCdevkit"]
