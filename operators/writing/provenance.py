"""Provenance of a derived series: the source of its UIDs and of its descriptive attributes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256

APPLICATION = "Stillscan"
CODING_SCHEME = "99STILLSCAN"

# UIDs below 2.25 need no registration authority (PS3.5 B.2); these UUIDs were generated once.
IMPLEMENTATION_CLASS_UID = "2.25.158225647533169122225935672181511932185"
CODING_SCHEME_UID = "2.25.148563020376077009290894991237008308444"
EXTENSION_CREATOR_UID = "2.25.300544069985756719144316705947915548270"
_UID_NAMESPACE = uuid.UUID("3b5503b1-8189-4863-b509-2684778214f7")


@dataclass(frozen=True)
class Provenance:
    """Everything besides the source that can change a pixel of the derived series.

    Attributes:
        version: version of the application.
        bundle: name of the weights' bundle.
        model_sha256: digest of the weights file.
        mode: the denoiser (student, fast_student, srds, one_step, blind_spot, identity).
        strength: share of the estimated noise that is removed, 0 to 1.
        confirmed_share: share of the correction that repeats confirm; 1 without repeats.
        engine: inference backend (torch, ncnn, openvino, onnxruntime, tensorrt).
        precision: precision of its arithmetic (float32, bfloat16, int8).
        device: kind of device (cpu, cuda).
        application: name of the software.
        pass_through_mm: standard deviation of the Gaussian whose frequencies pass; 0 for none.
    """

    version: str
    bundle: str
    model_sha256: str
    mode: str
    strength: float
    engine: str
    precision: str
    device: str
    application: str = APPLICATION
    confirmed_share: float = 1.0
    pass_through_mm: float = 0.0

    @property
    def software(self) -> str:
        """Name and version."""
        return f"{self.application} {self.version}"

    @property
    def is_control(self) -> bool:
        """Whether the pixels are the source's own, in the control mode."""
        return self.mode == "identity"

    @property
    def contribution(self) -> str:
        """ContributionDescription in ASCII: what this software did."""
        return (
            f"{'Control without noise reduction' if self.is_control else 'Noise reduction'}: "
            f"model {self.bundle} sha256 {self.model_sha256}, mode {self.mode}, "
            f"strength {self.strength:g}{self._of_it}{self._below}, "
            f"{self.engine} {self.precision} "
            f"on {self.device}"
        )

    @property
    def _of_it(self) -> str:
        share = f" of the {100 * self.confirmed_share:.0f} % that repeats confirm"
        return share if self.confirmed_share < 1 else ""

    @property
    def _below(self) -> str:
        passes = f", frequencies below a Gaussian of {self.pass_through_mm:g} mm unchanged"
        return passes if self.pass_through_mm and not self.is_control else ""

    @property
    def derivation(self) -> str:
        """DerivationDescription: what was done, and the instruction for its use (S3)."""
        return (
            f"{self.software}. {self.contribution}. To be read together with the original images."
        )


def implementation_version_name(version: str) -> str:
    """Return ImplementationVersionName of the file meta information: SH, at most 16 characters."""
    return f"{APPLICATION.upper()}_{version}"[:16]


def derived_series_uid(
    source_series_uid: str,
    source_instance_uids: Iterable[str],
    provenance: Provenance,
    options: Mapping[str, object],
) -> str:
    """Return the SeriesInstanceUID of the derived series of this instance set (W2).

    Equal arguments give the same UID, so that a repeat is idempotent; a late slice, other weights
    or another setting give another one.

    Args:
        source_series_uid: SeriesInstanceUID of the source.
        source_instance_uids: SOPInstanceUID of every instance of the source, in any order.
        provenance: everything that can change a pixel.
        options: everything that can change a header, by name.
    """
    made_by = asdict(provenance)
    made_by["borne_out"] = made_by.pop("confirmed_share")  # the name is part of existing UIDs
    if not made_by["pass_through_mm"]:
        del made_by["pass_through_mm"]
    return _uid("series", source_series_uid, sorted(source_instance_uids), made_by, options)


def derived_instance_uid(derived_series_uid: str, source_instance_uid: str) -> str:
    """Return the SOPInstanceUID of the image derived from this source instance."""
    return _uid("instance", derived_series_uid, source_instance_uid)


def object_uid(derived_series_uid: str, *names: str | int) -> str:
    """Return the UID of an object for this derived series, or of a series of such objects."""
    return _uid("object", derived_series_uid, *names)


def _uid(*entropy: object) -> str:
    """Return a UUID-derived UID (PS3.5 B.2), by SHA-256 so that no crafted UID collides."""
    digest = sha256(json.dumps(entropy, sort_keys=True).encode()).hexdigest()
    return f"2.25.{uuid.uuid5(_UID_NAMESPACE, digest).int}"
