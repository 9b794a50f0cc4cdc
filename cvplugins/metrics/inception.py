"""Features and class probabilities of images, by torchvision's Inception v3."""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from cvplugins.losses.features import FrozenFeatures

__all__ = ["InceptionFeatures"]

SIDE = 299


class InceptionFeatures:
    """Inception v3 of torchvision: 2048 features after the average pooling and the probabilities of its classes.

    Its published weights are not those of the TensorFlow network in the papers on FID and the inception score: numbers
    compare models with each other, but not with published ones. For those, give features of that network to
    :class:`cvplugins.metrics.GenerationMetric`, such as pytorch-fid's.

    Images are scaled to 299 x 299 by bilinear interpolation, as pytorch-fid does, and go through the network one at a
    time, so that the features of an image do not depend on what stands beside it.

    Args:
        weights: Path of a state dict of ``torchvision.models.inception_v3``, read without running code from it;
            ``"random"`` for tests.
        device: Where to compute.

    Raises:
        UserError: The file is missing or does not fit.
        ImportError: torchvision is missing.
    """

    def __init__(self, weights: str | os.PathLike[str], device: str | torch.device = "cpu") -> None:
        half = (0.5, 0.5, 0.5)
        self.device = torch.device(device)
        self.network = FrozenFeatures("inception_v3", weights, ["avgpool", "fc"], mean=half, std=half).to(self.device)

    @torch.no_grad()
    def __call__(self, image: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
        """Return features, float32 ``(2048,)``, and probabilities, float64 ``(K,)``, of one image.

        Args:
            image: RGB, ``(3, H, W)``, values from 0 to ``data_range``.
            data_range: Largest possible value.

        Raises:
            ValueError: The image has another shape.
        """
        if image.ndim != 3 or len(image) != 3:
            raise ValueError(f"Inception needs an image of shape (3, H, W), not {tuple(image.shape)}")
        batch = image[None].to(self.device, torch.float32) / data_range
        batch = F.interpolate(batch, (SIDE, SIDE), mode="bilinear", align_corners=False)
        features, logits = self.network(batch)
        return features.reshape(-1).cpu(), logits[0].cpu().double().softmax(0)
