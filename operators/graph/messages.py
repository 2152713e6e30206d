"""Messages between the stages: blocks of a series, or its failure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.plan import Plan
from stillscan.operators.errors import StillscanError
from stillscan.operators.reading.records import SeriesName
from stillscan.operators.volume import Volume
from stillscan.operators.writing.provenance import Provenance

Content = TypeVar("Content", covariant=True)


@dataclass(frozen=True)
class Method:
    """The method for the series of one modality, and its description for derived series.

    Attributes:
        strength: share of the correction that is applied.
        noise_range: sigma on the network's scale that the denoiser is made for; None for any.
        limits: limits of the quality gate.
        warnings: warnings for every series that is denoised with it.
        temporal: denoise a cine along its motion.
    """

    denoiser: Denoiser
    provenance: Provenance
    strength: float = 1.0
    noise_range: tuple[float, float] | None = None
    limits: GateLimits = field(default_factory=GateLimits)
    warnings: tuple[str, ...] = ()
    temporal: bool = False


@dataclass(frozen=True)
class SeriesSource:
    """One series to be read: its UID, its files, and the function that opens it as a volume.

    `sop_instance_uid` is that of a radiograph that is denoised alone, "" for a whole series; `name`
    is what the header calls the series, None if names are not to be shown.
    """

    series_instance_uid: str
    files: tuple[Path, ...]
    read: Callable[[], Volume]
    sop_instance_uid: str = ""
    name: SeriesName | None = None


@dataclass(frozen=True)
class SeriesFailed:
    """A series that cannot be processed; passed on to the stage that lists the outcomes."""

    source: SeriesSource
    error: StillscanError


class SeriesInProgress:
    """A planned series whose blocks are being processed; safe to use from several threads.

    Attributes:
        source: origin of the series.
        volume: the opened series.
        method: method of the denoising.
        plan: plan for the whole series.
    """

    def __init__(self, source: SeriesSource, volume: Volume, method: Method, plan: Plan) -> None:
        self.source = source
        self.volume = volume
        self.method = method
        self.plan = plan
        self._failing = threading.Lock()
        self._failed = False

    @property
    def failed(self) -> bool:
        """Whether a stage has failed the series, so that its other blocks need no work."""
        return self._failed

    def fail(self, error: StillscanError) -> SeriesFailed | None:
        """Mark the series as failed; return None if another stage has done so already."""
        with self._failing:
            if self._failed:
                return None
            self._failed = True
        return SeriesFailed(self.source, error)


@dataclass(frozen=True)
class SeriesBlock(Generic[Content]):
    """A block of a series: as read, as estimated, or as denoised."""

    series: SeriesInProgress
    content: Content
