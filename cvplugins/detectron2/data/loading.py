"""Training data as a function of (seed, rank, batch), so that a resumed run repeats the uninterrupted one.

Detectron2's loader begins anew when a run is resumed: other images in another order, other augmentation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset, get_detection_dataset_dicts
from detectron2.data.build import _train_loader_from_config, filter_images_with_only_crowd_annotations
from detectron2.utils import comm
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from cvplugins.errors import UserError
from cvplugins.randomness import DATA, MODEL, seed_everything

from .image_failures import FilesNamed
from .mappers import build_mapper

__all__ = ["TrainingLoader", "build_training_loader", "group_batches", "training_records"]


class TrainingLoader:
    """An endless loader that can begin at any batch.

    Before each batch it seeds augmentation, and before it gives one away, the generators that the model draws from.

    Args:
        records: Images as Detectron2 has them.
        mapper: Makes the model's input from one.
        sampler: Endless indices of this process's images, the same in each pass.
        batch_size: Images of this process in a batch.
        seed: What every seed begins with.
        group: Whether images of a batch are all landscape or all portrait; those whose records do not say, such as
            Detectron2's for semantic segmentation, form one group.
        num_workers: Processes that load.

    Attributes:
        start: Number of the batch to begin with.
    """

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], Any],
        sampler: Iterable[int],
        batch_size: int,
        seed: int,
        group: bool = True,
        num_workers: int = 0,
    ) -> None:
        self.images = MapDataset(DatasetFromList(records, copy=False), mapper)
        self.is_wide = [group and each.get("width", 0) > each.get("height", 0) for each in records]
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.start = 0

    def __iter__(self) -> Iterator[list[Any]]:
        numbered = enumerate(group_batches(self.sampler, self.is_wide, self.batch_size))
        loader = DataLoader(
            _SeededBatches(self.images, (self.seed, comm.get_rank(), DATA)),
            sampler=itertools.islice(numbered, self.start, None),
            batch_size=None,  # the sampler gives whole batches
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            generator=Generator(),  # else its start would draw from the generator seeded here
        )
        for number, batch in enumerate(loader, self.start):
            seed_everything(self.seed, comm.get_rank(), MODEL, number)
            yield batch


class _SeededBatches(Dataset):
    """What a batch holds, by its number and the indices of its images."""

    def __init__(self, images: MapDataset, numbers: tuple[int, ...]) -> None:
        self.images = images
        self.numbers = numbers

    def __getitem__(self, batch: tuple[int, list[int]]) -> list[Any]:
        number, indices = batch
        seed_everything(*self.numbers, number)
        return [self.images[index] for index in indices]


def build_training_loader(cfg: CfgNode) -> TrainingLoader:
    """Return the loader that the config describes.

    Args:
        cfg: Its ``SEED`` must be set.

    Raises:
        UserError: The batch cannot be divided among the processes, or a dataset does not say what is difficult.
    """
    processes = comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise UserError(f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; it must be a multiple of {processes}")
    # Private in Detectron2 (0.6), but the only place that knows all of its samplers and mappers.
    mapper = build_mapper(cfg, cfg.DATASETS.TRAIN)
    known = _train_loader_from_config(cfg, mapper=mapper, dataset=training_records(cfg))
    return TrainingLoader(
        known["dataset"],
        FilesNamed(known["mapper"]),
        known["sampler"],
        cfg.SOLVER.IMS_PER_BATCH // processes,
        cfg.SEED,
        known["aspect_ratio_grouping"],
        known["num_workers"],
    )


def training_records(cfg: CfgNode) -> list[dict[str, Any]]:
    """Return the images to train on, with difficult objects as ``cfg.CVPLUGINS.DATA.DIFFICULT`` wants them.

    Raises:
        UserError: They shall be ignored, but a dataset does not say which ones they are; or no image is left.
    """
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    proposals = cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None
    records = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, False, keypoints, proposals)
    if not cfg.CVPLUGINS.DATA.DIFFICULT:
        records = [_without_difficult(each) for each in records]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and records and "annotations" in records[0]:
        records = filter_images_with_only_crowd_annotations(records)
    if not records:
        raise UserError(
            f"DATASETS.TRAIN: no image of {', '.join(cfg.DATASETS.TRAIN)} is left to train on; "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS leaves out those without objects"
        )
    return records


def group_batches(indices: Iterable[int], group: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Put indices into batches of one group each, in the order in which they fill up.

    >>> list(group_batches([0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 1, 0], 2))
    [[0, 2], [1, 3]]
    """
    waiting: dict[int, list[int]] = {}
    for index in indices:
        batch = waiting.setdefault(group[index], [])
        batch.append(index)
        if len(batch) == batch_size:
            yield waiting.pop(group[index])


def _without_difficult(record: dict[str, Any]) -> dict[str, Any]:
    """Return the image with its difficult objects marked as crowds, which Detectron2's mappers leave out."""
    found = record.get("annotations", [])
    if any("difficult" not in each for each in found):
        raise UserError(
            f"CVPLUGINS.DATA.DIFFICULT is False, but the dataset of {record['file_name']} does not say which objects "
            "are difficult; use cvplugins_voc_2007_trainval and the like in DATASETS.TRAIN, or set it to True"
        )
    return {**record, "annotations": [{**each, "iscrowd": int(each["difficult"])} for each in found]}


def _as_it_is(batch: Any) -> Any:
    return batch
