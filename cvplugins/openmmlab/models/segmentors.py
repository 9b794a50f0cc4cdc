"""mmseg's models where they are tested in windows or in several versions of an image."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

from cvplugins.registry import MODELS

__all__: list[str] = []

if importlib.util.find_spec("mmseg") is not None:
    from mmseg.models.segmentors import EncoderDecoder, SegTTAModel

    __all__ += ["MeanScoreTTAModel", "WindowEncoderDecoder"]

    @MODELS.register_module()
    class WindowEncoderDecoder(EncoderDecoder):
        """mmseg's EncoderDecoder whose sliding window works with Mask2Former too.

        Mask2Former's head resizes its masks to ``pad_shape`` of the whole image, also for a window of it
        (mmseg/models/decode_heads/mask2former_head.py, 1.2.2 and 1.4.2).
        """

        def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
            """Return the scores of a batch of images or of a window of them, as large as ``inputs``."""
            size = tuple(inputs.shape[2:])
            return super().encode_decode(inputs, [{**meta, "pad_shape": size} for meta in batch_img_metas])

    @MODELS.register_module()
    class MeanScoreTTAModel(SegTTAModel):
        """Average the scores of all versions of an image as they are, as Mask2Former's authors do.

        mmseg's SegTTAModel puts them through a softmax first; Mask2Former's are sums of probabilities already.
        """

        def merge_preds(self, data_samples_list: Sequence[Sequence]) -> list:
            """Return one data sample an image, with the mean scores and their labels."""
            merged = []
            for versions in data_samples_list:
                scores = torch.stack([version.seg_logits.data for version in versions]).mean(0)
                sample = versions[0]
                sample.seg_logits.data = scores
                sample.pred_sem_seg.data = scores.argmax(0, keepdim=True)
                merged.append(sample)
            return merged
