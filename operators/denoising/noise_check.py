"""Check of the noise level of a series against measurements that do not depend on it.

The gate compares a correction with the noise, so a level that is too high would hide its own
error. The lowest level that an independent witness found (models/noise/estimation.py) bounds what
may be removed: with the correction c and a witness's sigma_w, no more than the share

    w = sigma_w^2 / mean(c^2)

of the correction is applied where the level is more than TOO_HIGH times the witness's. A correction
that removes noise alone has mean(c^2) <= sigma_w^2 and stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from stillscan.models.noise.profile import NoiseProfile

TOO_HIGH = 1.4  # times the lowest witness: independent measurements differ by up to this
REFUTED = 3.0  # times the lowest witness: nothing may be removed with such a level
TOO_LOW = 0.7  # of the lowest witness
ONE_WITNESS_SHARE = 0.75  # of the correction that is applied where one measurement stands alone


@dataclass(frozen=True)
class NoiseCheck:
    """Comparison of the level that is used with independent measurements.

    Attributes:
        excess: the level over the lowest that a witness found; None without a witness.
        alone: whether only one measurement supports the level.
        repeated: whether repeated acquisitions judge the correction, so that nothing else must.
    """

    excess: float | None = None
    alone: bool = False
    repeated: bool = False

    @classmethod
    def of(cls, noise: NoiseProfile) -> NoiseCheck:
        """Check a profile against its own witnesses."""
        lowest = min((each.sigma for each in noise.witnesses if each.proven), default=0.0)
        excess = noise.sigma / lowest if lowest > 0 else None
        return cls(excess, noise.certainty == "one witness")

    @property
    def refuted(self) -> bool:
        """Whether the level is so much too high that nothing may be removed."""
        return self.excess is not None and self.excess > REFUTED

    @property
    def share(self) -> float:
        """Share of the correction that may be applied, whatever the correction is."""
        return ONE_WITNESS_SHARE if self.alone else 1.0

    @property
    def bound(self) -> float | None:
        """The excess, where the removed energy must be bounded; None where levels agree."""
        too_high = self.excess is not None and self.excess > TOO_HIGH
        return self.excess if too_high and not self.repeated else None

    @property
    def warning(self) -> str:
        """Warning for users; empty where independent measurements agree."""
        times = f"the noise level used is {self.excess or 0:.1f} times that of an independent"
        if self.excess is not None and self.excess > TOO_HIGH:
            then = "judged by repeated acquisitions" if self.repeated else "reduced"
            return f"{times} measurement; the correction was {then}"
        if self.excess is not None and self.excess < TOO_LOW:
            return f"{times} measurement; noise is left"
        if self.alone and not self.repeated:
            return (
                "only one measurement of the noise was possible; "
                f"{100 * self.share:.0f} % of the correction was applied"
            )
        return ""
