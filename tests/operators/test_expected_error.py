"""The error in the foreground is predicted without a reference: by how much it falls, or rises."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stillscan.models.denoisers.denoiser import Estimate
from stillscan.models.training.dead_leaves import dead_leaves
from stillscan.operators.array_volume import array_volume
from stillscan.operators.denoising.denoise_series import denoise_block, plan_series
from stillscan.operators.denoising.expected_error import foreground
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.intensity import Scaling

LOOSE = GateLimits(residual_deviation=100, residual_mean=100, clamp_score=1e6, clamped_share=1)


class Blur:
    def __init__(self, width):
        self.width = width

    def denoise(self, image, noise):
        blurred = gaussian_filter(image.numpy(), (0, 0, self.width, self.width))
        return Estimate(torch.from_numpy(blurred))


@pytest.mark.parametrize(
    ("sigma", "width", "rises"), [(0.08, 0.6, False), (0.15, 0.8, False), (0.03, 2.0, True)]
)
def test_change_of_the_error_is_predicted(sigma, width, rises):
    rng = np.random.default_rng(2)
    clean = np.stack([dead_leaves(192, rng) for _ in range(3)])
    clean[:, :40] = 0  # air of exactly 0 counts for nothing
    noisy = np.where(clean > 0, clean + sigma * rng.standard_normal(clean.shape), 0)
    volume = array_volume(noisy.astype(np.float32), "OT", [None] * 3)
    volume, plan = plan_series(volume, Blur(width), limits=LOOSE, scaling=Scaling(0.0, 1.0))
    made = np.concatenate(
        [denoise_block(Blur(width), each, plan, 0.8, LOOSE).pixels for each in volume.blocks()]
    )
    seen = foreground(noisy[1]) & (noisy[1] != 0)  # it is measured in the middle slice
    before, after = (np.square(each[1] - clean[1])[seen].mean() for each in (noisy, made))
    true = (after / before) ** 0.5 - 1
    assert (true > 0) == rises
    assert plan.error_change(0.8) == pytest.approx(true, abs=0.08 + 0.15 * max(true, 0))
    assert any("not expected to fall" in each for each in plan.warnings) == rises
