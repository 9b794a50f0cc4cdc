"""The sample of scenes and its generator. Oracles: what the sample promises, counted with Pillow; a second drawing."""

import numpy as np
import pytest

import cvplugins.samples.ade20k as generator
from cvplugins.cli import main
from cvplugins.datasets import ADE20K_CLASSES
from cvplugins.errors import UserError
from cvplugins.samples.ade20k import KINDS, STUFF, THINGS, draw_scene, write_ade20k_sample

image = pytest.importorskip("PIL.Image")

RARE = {rare for _, rare in KINDS.values()}


def maps(scenes, split):
    return [np.asarray(image.open(path)) for path in sorted((scenes / "annotations" / split).glob("*.png"))]


def images_with(scenes, split):
    """Return in how many label maps each class occurs."""
    return {
        name: sum(index in labels for labels in maps(scenes, split))
        for index, name in enumerate(("unlabelled", *ADE20K_CLASSES))
    }


def test_the_committed_sample_is_what_the_generator_draws(scenes, tmp_path):
    again = tmp_path / "again"
    write_ade20k_sample(again)
    files = {path.relative_to(scenes) for path in scenes.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    for name in sorted(files):
        if name.suffix == ".png":  # how a PNG is packed depends on zlib
            assert np.array_equal(image.open(scenes / name), image.open(again / name)), name
        elif name.suffix == ".txt":
            assert (scenes / name).read_text() == (again / name).read_text()
    for name in sorted(name for name in files if name.suffix == ".jpg")[::10]:
        first, second = (np.asarray(image.open(root / name), float) for root in (scenes, again))
        assert np.abs(first - second).mean() < 1.5, name


def test_size_and_layout(scenes):
    assert sum(path.stat().st_size for path in scenes.rglob("*") if path.is_file()) < 4e6
    for split, count in (("training", 160), ("validation", 41)):
        images, labels = (
            {path.stem: image.open(path) for path in (scenes / folder / split).iterdir()}
            for folder in ("images", "annotations")
        )
        assert images.keys() == labels.keys()
        assert len(images) == count
        assert all(images[name].size == labels[name].size for name in images)
        assert all((images[name].mode, labels[name].mode) == ("RGB", "L") for name in images)
        assert len({each.size for each in images.values()}) >= 5
    categories = dict(line.split() for line in (scenes / "sceneCategories.txt").read_text().splitlines())
    assert len(categories) == 201
    assert set(categories.values()) == set(KINDS)
    table = (scenes / "objectInfo150.txt").read_text().splitlines()
    assert table[3].split("\t")[2] == "sky"
    assert len(table) == 151


def test_scenes_hold_stuff_things_rare_classes_and_unlabelled_pixels(scenes):
    training, validation = (images_with(scenes, split) for split in ("training", "validation"))
    drawn = {*STUFF, *THINGS}
    assert {name for name, count in training.items() if count} == drawn | {"unlabelled"}
    assert {name for name, count in validation.items() if count} >= (drawn | {"unlabelled"}) - RARE
    assert all(1 <= training[name] <= 12 for name in RARE)  # of 160 images
    assert all(training[name] > 12 for name in drawn - RARE)
    assert {name for name, count in validation.items() if count} & RARE
    unlabelled = [float((labels == 0).mean()) for labels in maps(scenes, "training")]
    assert 0.1 < np.mean(np.array(unlabelled) > 0.002) < 0.5


def test_labels_lie_where_the_picture_shows_the_class():
    """Oracle: the colours. Grass is greener than sky, sky bluer than grass, in every scene."""
    for seed in range(5):
        pixels, labels = draw_scene("meadow", np.random.RandomState(seed))
        sky, grass = (pixels[labels == ADE20K_CLASSES.index(name) + 1].mean(axis=0) for name in ("sky", "grass"))
        assert sky[2] > sky[1] > sky[0]
        assert grass[1] > grass[0] > grass[2]


def test_equal_seeds_give_equal_scenes_and_others_do_not():
    first, same, other = (draw_scene("street", np.random.RandomState(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first[0], same[0])
    assert np.array_equal(first[1], same[1])
    assert first[0].shape != other[0].shape or not np.array_equal(first[0], other[0])


def test_the_command_says_what_it_wrote_and_replaces_only_a_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generator, "SPLITS", (("training", 2, "{}"), ("validation", 1, "{}")))
    root = tmp_path / "scenes"
    assert main(["sample", "ade20k", str(root)]) == 0
    assert "3 images, 9 files" in capsys.readouterr().out
    assert main(["sample", "ade20k", str(root)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert main(["sample", "ade20k", str(root), "--force"]) == 0
    (root / "drawn.txt").unlink()
    with pytest.raises(UserError, match="not a sample"):
        write_ade20k_sample(root, overwrite=True)
