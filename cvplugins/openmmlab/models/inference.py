"""How mmseg's models see an image when they are tested: whole, in windows, at several sizes, flipped."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.config import Config, ConfigDict

from cvplugins.errors import UserError
from cvplugins.openmmlab.run.config import type_name

__all__ = ["use_inference"]


def use_inference(
    cfg: Config, mode: str | None = None, scales: Sequence[float] | None = None, flip: bool = False
) -> None:
    """Set how images are tested; what is not given stays as the config says.

    Args:
        cfg: A loaded config of an mmseg model; changed.
        mode: ``"whole"``, or ``"slide"``: windows of the training's crop size, each two thirds of it further on.
        scales: Sizes, as factors of the test pipeline's own, whose scores are averaged.
        flip: Whether to average with the mirrored image.

    Raises:
        UserError: The config is not of a model of mmseg's, or lacks a crop size or a ``Resize``.
    """
    if mode is None and not scales and not flip:
        return
    if cfg.get("default_scope") != "mmseg":
        raise UserError("--mode, --scales and --flip are for mmseg's models (default_scope = 'mmseg')")
    if mode is not None:
        _set_mode(cfg, mode)
    if scales or flip:
        _augment(cfg, scales or [1.0], flip)


def _set_mode(cfg: Config, mode: str) -> None:
    test_cfg = cfg.model.setdefault("test_cfg", ConfigDict())
    test_cfg.mode = mode
    if mode == "whole":
        return
    if test_cfg.get("crop_size") is None:
        size = (cfg.model.get("data_preprocessor") or {}).get("size")
        if size is None:
            raise UserError(
                "--mode slide: the config names no window: add model.test_cfg.crop_size=(512,512) and "
                "model.test_cfg.stride=(341,341) to --cfg-options"
            )
        test_cfg.crop_size = tuple(size)
    if test_cfg.get("stride") is None:
        test_cfg.stride = tuple(2 * side // 3 for side in test_cfg.crop_size)
    if type_name(cfg.model) == "EncoderDecoder":
        cfg.model.type = "cvplugins.WindowEncoderDecoder"


def _augment(cfg: Config, scales: Sequence[float], flip: bool) -> None:
    """Let the loader of the test give every version of an image, and the model average them."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    places = [place for place, step in enumerate(pipeline) if type_name(step) == "Resize"]
    if len(places) != 1 or "scale" not in pipeline[places[0]]:
        raise UserError("--scales, --flip: the test pipeline needs one Resize with scale=(..., ...) to vary")
    before, resize, after = pipeline[: places[0]], pipeline[places[0]], pipeline[places[0] + 1 :]
    sizes = [{**resize, "scale": tuple(round(side * scale) for side in resize.scale)} for scale in scales]
    flips = [{"type": "RandomFlip", "prob": float(flipped), "direction": "horizontal"} for flipped in range(1 + flip)]
    versions = {"type": "TestTimeAug", "transforms": [sizes, flips, *([step] for step in after)]}
    cfg.test_dataloader.dataset.pipeline = [*before, versions]
    cfg.model = ConfigDict(type="cvplugins.MeanScoreTTAModel", module=cfg.model)
