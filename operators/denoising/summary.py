"""Summary of the blocks of a series: noise before and after, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from stillscan.operators.denoising.denoise_series import DenoisedBlock
from stillscan.operators.denoising.gate import GateRefusedError, Verdict, combine


class SeriesSummary:
    """Collects the figures of the denoised blocks of one series."""

    def __init__(self) -> None:
        """Start without blocks."""
        self._verdicts: list[Verdict] = []
        self._before: list[tuple[int, float]] = []
        self._after: list[tuple[int, float]] = []

    def add(self, denoised: DenoisedBlock) -> None:
        """Add the next block."""
        slices = len(denoised.block.headers)
        self._verdicts.append(denoised.verdict)
        if denoised.noise_before is not None:
            self._before.append((slices, denoised.noise_before))
        if denoised.noise_after is not None:
            self._after.append((slices, denoised.noise_after))

    @property
    def noise_before(self) -> float | None:
        """Standard deviation of the noise of the source, modality units; None if not measured."""
        return _pooled(self._before)

    @property
    def noise_after(self) -> float | None:
        """Standard deviation of the noise that is left; None if it was not measured."""
        return _pooled(self._after)

    def accepted(self) -> Verdict:
        """Return the verdict on the whole series.

        Raises:
            GateRefusedError: if the gate refuses one of its blocks.
        """
        verdict = combine(self._verdicts)
        if verdict.decision == "refuse":
            raise GateRefusedError("; ".join(verdict.reasons))
        return verdict


def _pooled(sigmas: Sequence[tuple[int, float]]) -> float | None:
    """Return the root mean square of the blocks' sigmas, weighted by their slices."""
    slices = sum(count for count, _ in sigmas)
    if slices == 0:
        return None
    return float((sum(count * sigma**2 for count, sigma in sigmas) / slices) ** 0.5)
