"""An image that cannot be decoded in the middle of a run: one line that names its file, also from a worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.data import detection_utils

from cvplugins.errors import DataError, first_line

__all__ = ["FilesNamed", "UndecodableError"]


class UndecodableError(DataError):
    """An image or label map whose header is whole and whose content is not.

    Args:
        message: In one line; or what torch's loader makes of an error in a worker, whose last line that is.
    """

    def __init__(self, message: str) -> None:
        last = message.strip().splitlines()[-1]
        super().__init__(last.removeprefix(f"{type(self).__module__}.{type(self).__qualname__}: "))


class FilesNamed:
    """A mapper of Detectron2, or of anyone, with the file in the message where one cannot be decoded.

    Args:
        mapper: Makes a model's input from a record. What it raises itself passes if the record's files are fine.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], Any]) -> None:
        self.mapper = mapper

    def __call__(self, record: dict[str, Any]) -> Any:
        """Return the model's input.

        Raises:
            UndecodableError: A file of the record cannot be decoded.
        """
        try:
            return self.mapper(record)
        except Exception as error:
            _check_files(record, error)
            raise


def _check_files(record: Mapping[str, Any], cause: Exception) -> None:
    for key in ("file_name", "sem_seg_file_name", "pan_seg_file_name"):
        path = record.get(key)
        if path is None:
            continue
        try:
            detection_utils.read_image(path)
        except Exception as error:  # damaged bytes make decoders raise anything
            raise UndecodableError(
                f"{path} cannot be decoded ({type(error).__name__}: {first_line(error)}); replace the file or take it "
                "off the list; --dry-run --full finds all such files before a run"
            ) from cause
