"""Expected change of the error in the foreground, without a reference (Monte-Carlo SURE).

With noise n of covariance S and the correction c(y) = x_hat(y) - y, the expected squared error of
y + s c(y) is that of y plus

    2 s tr(S J) + s^2 |c|^2,    tr(S J) = E[b^T (c(y + t b) - c(y)) / t],  b of the law of the noise

(Stein 1981; Ramani, Blu and Unser 2008). Unlike the noise in flat places it counts what is lost
where there is structure. It is right as far as the measured noise is; the lowest
independent measurement of its level judges, not the level that the network was given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stillscan.models.noise.levels import DARK

Planes = Float[np.ndarray, "..."]

STEP = 0.1  # of the noise: t
LOW_SNR = 5.0  # Rose: below it the mean of a magnitude image lies over 2 % above the signal


def foreground(image: Planes) -> np.ndarray:
    """Pixels with signal; 0 is no signal."""
    return image > DARK * np.quantile(image, 0.98)


@dataclass(frozen=True)
class ExpectedError:
    """What the correction does to the error in the foreground, in units of the noise's power.

    Attributes:
        removed: -tr(S J): how much of the noise the correction takes away.
        change: mean square of the correction.
        snr: median of signal over noise of a magnitude image, else infinite.
    """

    removed: float
    change: float
    snr: float

    @classmethod
    def of(
        cls, signal: Planes, noise: Planes, first: Planes, second: Planes, excess: float = 1.0
    ) -> ExpectedError | None:
        """Compute it from pixels of the foreground, all over sigma; None without any.

        Args:
            signal: y of a magnitude image, else infinite.
            noise: b.
            first: correction of y.
            second: correction of y + STEP b.
            excess: sigma over that of an independent measurement, which judges instead.
        """
        if not signal.size:
            return None
        removed = -float((noise * (second - first)).mean()) / STEP / float((noise**2).mean())
        change = excess**2 * float((first**2).mean())
        return cls(removed, change, excess * float(np.median(signal)))

    def relative(self, strength: float) -> float:
        """Root mean square error after over before, minus 1, with this share of the correction."""
        power = 1 - 2 * strength * self.removed + strength**2 * self.change
        return float(np.sqrt(max(power, 0.0))) - 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for users."""
        worse = "the error in the foreground is not expected to fall"
        low = f"half of the foreground is below {self.snr:.1f} times the noise: magnitudes are too "
        low += "bright there, which denoising does not change"
        found = (worse if self.relative(1) > 0 else "", low if self.snr < LOW_SNR else "")
        return tuple(each for each in found if each)
