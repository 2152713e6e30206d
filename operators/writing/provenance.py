"""Provenance of a derived series: what was done to the source, by what, and how it is described."""

from __future__ import annotations

from dataclasses import dataclass

APPLICATION = "Stillscan"
CODING_SCHEME = "99STILLSCAN"

INTERPOLATION = "interpolation"  # mode of a series with made phases between the acquired ones
# its ContributionDescription begins with this, by which such a series is recognised
INTERPOLATED = "Temporal interpolation"

# UIDs below 2.25 need no registration authority (PS3.5 B.2); these UUIDs were generated once.
IMPLEMENTATION_CLASS_UID = "2.25.158225647533169122225935672181511932185"
CODING_SCHEME_UID = "2.25.148563020376077009290894991237008308444"
EXTENSION_CREATOR_UID = "2.25.300544069985756719144316705947915548270"


@dataclass(frozen=True)
class Provenance:
    """Everything besides the source that can change a pixel of the derived series.

    Attributes:
        version: version of the application.
        bundle: name of the weights' bundle.
        model_sha256: digest of the weights file.
        mode: the denoiser (student, fast_student, srds, one_step, blind_spot, identity), or
            INTERPOLATION.
        strength: share of the estimated noise that is removed, 0 to 1.
        confirmed_share: share of the correction that the series confirms, by repeats or by
            independent measurements of the noise.
        engine: inference backend (torch, ncnn, openvino).
        precision: precision of its arithmetic (float32, bfloat16, int8).
        device: kind of device (cpu, cuda).
        application: name of the software.
        pass_through_mm: standard deviation of the Gaussian whose frequencies pass; 0 for none.
        temporal: whether phases of a cine were averaged along the motion first.
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
    temporal: bool = False

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
        if self.mode == INTERPOLATION:
            return f"{INTERPOLATED} of a cine along its motion: registration without a network"
        return (
            f"{'Control without noise reduction' if self.is_control else 'Noise reduction'}: "
            f"model {self.bundle} sha256 {self.model_sha256}, mode {self.mode}, "
            f"strength {self.strength:g}{self._of_it}{self._below}{self._along}, "
            f"{self.engine} {self.precision} "
            f"on {self.device}"
        )

    @property
    def _of_it(self) -> str:
        share = f" of the {100 * self.confirmed_share:.0f} % that the series confirms"
        return share if self.confirmed_share < 1 else ""

    @property
    def _below(self) -> str:
        passes = f", frequencies below a Gaussian of {self.pass_through_mm:g} mm unchanged"
        return passes if self.pass_through_mm and not self.is_control else ""

    @property
    def _along(self) -> str:
        return ", phases of a cine averaged along the motion before" if self.temporal else ""

    @property
    def derivation(self) -> str:
        """DerivationDescription: what was done, and the instruction for its use (S3)."""
        return (
            f"{self.software}. {self.contribution}. To be read together with the original images."
        )


def implementation_version_name(version: str) -> str:
    """Return ImplementationVersionName of the file meta information: SH, at most 16 characters."""
    return f"{APPLICATION.upper()}_{version}"[:16]
