"""Hook: the loss on the test set, as a result like any other: ``val/loss``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import detection_utils as utils
from detectron2.utils.events import EventStorage

from cvplugins.detectron2.data.image_failures import FilesNamed
from cvplugins.detectron2.data.mappers import build_mapper
from cvplugins.detectron2.models.model_losses import named_losses
from cvplugins.detectron2.models.scripted import as_written
from cvplugins.distributed import gather_objects
from cvplugins.errors import UserError
from cvplugins.monitors import VALIDATION_LOSSES, mean_losses, to_numbers, undisturbed

from .plugin_hook import PluginHook, logger

__all__ = ["ValidationLoss", "build_validation_loader"]


class ValidationLoss(PluginHook):
    """Add the model's losses to the results of every evaluation.

    :func:`cvplugins.monitors.mean_losses` says what ``val/loss`` and its parts are, and
    :func:`cvplugins.monitors.undisturbed` how the model computes them and what stays as it was; so does the storage.
    With EMAHook the average is measured. Images have the size of the test set's (``INPUT.MIN_SIZE_TEST``). RetinaNet's
    normaliser is a running mean on each rank, so that its loss depends on their number.

    Args:
        data_loader: Gives lists of records with the true instances, each rank its own; or a function that makes it.

    Example:
        In the config::

            HOOKS: [{type: ValidationLoss}, {type: EarlyStoppingHook, monitor: val/loss}]

        With a trainer of one's own: ``ValidationLoss(build_validation_loader(cfg))``.
    """

    evaluates = True
    adds = VALIDATION_LOSSES

    def __init__(self, data_loader: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        self._loader = data_loader

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the loader of the test sets, which reads nothing yet."""
        return {**super().from_config(cfg), "data_loader": lambda: build_validation_loader(cfg)}

    def results(self) -> dict[str, Any]:
        """Return the losses, the same on all ranks."""
        if callable(self._loader):
            self._loader = self._loader()
        records = [record for batch in self._loader for record in batch]
        own = [(_name(record), self._losses(record)) for record in records]
        mean = mean_losses([result for rank in gather_objects(own) for result in rank])
        for warning in mean.warnings():
            logger.warning(warning)
        return {"val": mean.losses}

    def _losses(self, record: Mapping[str, Any]) -> dict[str, float]:
        if "instances" not in record and "sem_seg" not in record:
            raise UserError(
                f"ValidationLoss needs the true instances of {_name(record)}, which its loader does not give; "
                "use build_validation_loader(cfg), or a mapper with is_train=True"
            )
        device = next(self.model.parameters()).device
        with (
            undisturbed(self.model, device) as call,
            as_written(),
            EventStorage(self.trainer.iter),  # its own; the iteration counts for the schedules of CompositeLoss
        ):
            numbers = to_numbers(named_losses(call([record])), device)
        return {"loss": sum(numbers.values()), **numbers}


def build_validation_loader(cfg: Any) -> Iterable[Any]:
    """Return a loader of the test sets with their annotations: each rank its part, one image at a time, no flips.

    Args:
        cfg: Detectron2's config; ``DATASETS.TEST``, ``INPUT`` and ``DATALOADER.NUM_WORKERS`` count.
    """
    names = list(cfg.DATASETS.TEST)
    records = get_detection_dataset_dicts(names, filter_empty=False)
    mapper = build_mapper(cfg, names, utils.build_augmentation(cfg, is_train=False))
    return build_detection_test_loader(records, mapper=FilesNamed(mapper), num_workers=cfg.DATALOADER.NUM_WORKERS)


def _name(record: Mapping[str, Any]) -> str:
    return str(record.get("file_name", record.get("image_id", "an image")))
