"""Which series are processed, and why the others are not: decided from headers alone.

A rule never says that something is wrong with a series, only that it is not one to denoise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from pydicom.uid import UID

from stillscan.operators.reading.records import VALID_UID, FrameAttributes, Identification, Instance

Policy = Literal["refuse", "process"]

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",  # for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",  # for processing
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
MULTI_FRAME_SOP_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.3",  # Enhanced MR Color
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
    "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
)
LOSSY_SYNTAXES = (
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 53, 55, 81, 91)),
    "1.2.840.10008.1.2.4.203",  # HTJ2K
)
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")

# ImageType: CT C.8.2.1.1.1, MR C.8.3.1.1.1, enhanced C.8.16.1, and what vendors write. In enhanced
# objects value 3 is a flavour (an FMRI or a PERFUSION frame is an ordinary image) and value 4 says
# what was computed; Philips writes the component or the map into value 4, Siemens into either.
LOCALIZER = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})
SCREEN = frozenset({"SCREEN SAVE"})
COMPLEX = frozenset({"P", "R", "I", "PHASE", "REAL", "IMAGINARY"})
COMPLEX_3 = COMPLEX | {"PHASE MAP", "PHASE SUBTRACT", "VELOCITY MAP"}
COMPLEX_4 = COMPLEX | {"VELOCITY"}
COMPLEX_PREFIXES = ("P_", "R_", "I_")  # Philips: P_FFE, R_IR
MAPS = frozenset(
    {"ADC", "EADC", "FA", "COLFA", "TENSOR", "EXPADC", "TTP", "MTT", "TMAX", "CBF", "CBV", "RCBF"}
    | {"RCBV", "RELCBF", "RELCBV", "RELMTT", "PBP", "GBP", "KTRANS", "FF", "FIELD_MAP", "STIFFNESS"}
)
MAPS_3 = MAPS | {"DENSITY MAP", "DIFFUSION MAP", "T1 MAP", "T2 MAP", "T2_STAR MAP", "R2_STAR MAP"}
MAPS_4 = (
    MAPS
    | {"T1", "T2", "T2_STAR", "R2", "R2_STAR", "T1_MAP", "T2_MAP", "T2_STAR_MAP", "SNR_MAP", "RHO"}
    | {"METABOLITE_MAP", "DIFFUSION_ANISO", "NEI", "R_COEFFICIENT", "SCM", "TCS", "TEMPERATURE"}
    | {"STD_DEVIATION", "T_TEST", "Z_SCORE", "FAT_FRACTION", "QUANTITY", "PERMEABILITY"}
    | {"MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY"}
)
REFORMATTED = frozenset(
    {"MPR", "CPR", "MIP", "MINIP", "MNIP", "MIN IP", "MAX IP", "MIN_IP", "MAX_IP", "REFORMATTED"}
    | {"RESAMPLED", "PROJECTION IMAGE", "VRT", "SSD", "3D RENDERING", "VOLUME RENDERING"}
    | {"CSA MPR", "CSA MIP", "CSA MINIP", "CSA RESAMPLED"}
)
REFORMATTED_4 = REFORMATTED | {"MAXIMUM", "MINIMUM"}  # over frames (PS3.3 C.8.16.1.4)
# VolumeBasedCalculationTechnique and PixelPresentation (PS3.3 C.8.16.2)
CALCULATIONS = frozenset(
    {"MAX_IP", "MIN_IP", "MPR", "CURVED_MPR", "VOLUME_RENDER", "SURFACE_RENDER", "MIXED"}
)
IN_COLOUR = frozenset({"COLOR", "TRUE_COLOR", "MIXED"})
COMPONENTS_WITH_SIGN = frozenset({"PHASE", "REAL", "IMAGINARY", "MIXED"})


@dataclass(frozen=True)
class SelectionRules:
    """Which series are processed; the section `selection` of `app.yaml`.

    Attributes:
        modalities: that are processed.
        min_matrix: rows and columns that an image must have at least.
        localizers, complex_images, maps, reformatted: images of these kinds by ImageType.
        burned_in: images with BurnedInAnnotation YES.
        lossy: images that were compressed with losses at some time.
        denoised: series that Stillscan made.
        descriptions: patterns (`*t1*`, case does not count), one of which SeriesDescription must
            match; none: any description.
        excluded_descriptions: patterns that SeriesDescription must not match.
    """

    modalities: tuple[str, ...] = ("MR", "CT", "PT", "CR", "DX")
    min_matrix: int = 32
    localizers: Policy = "refuse"
    complex_images: Policy = "refuse"
    maps: Policy = "refuse"
    reformatted: Policy = "refuse"
    burned_in: Policy = "refuse"
    lossy: Policy = "refuse"
    denoised: Policy = "refuse"
    descriptions: tuple[str, ...] = ()
    excluded_descriptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class NotSelected:
    """Why an image is not one to process: a stable code and a sentence."""

    reason: str
    message: str


def name_of_uid(uid: str) -> str:
    """The name that PS3.6 gives a UID; the UID itself where it gives none."""
    return UID(uid).name if VALID_UID.fullmatch(uid) else "no UID"


def why_not_an_image_to_denoise(
    instance: Identification, rules: SelectionRules
) -> NotSelected | None:
    """The first reason for which no image of this kind is processed; None if it may be.

    These are asked before anything is said to be wrong with a file: a damaged screenshot is none
    of our business.
    """
    return next(_kind_reasons(instance, rules), None)


def why_not_selected(instance: Instance, rules: SelectionRules) -> NotSelected | None:
    """The first rule that this sound image does not pass; None if it is selected."""
    return next(_image_reasons(instance, rules), None)


def _kind_reasons(instance: Identification, rules: SelectionRules) -> Iterator[NotSelected]:
    uid = instance.sop_class_uid
    if uid not in SOP_CLASSES and uid not in MULTI_FRAME_SOP_CLASSES:
        yield NotSelected("unsupported-sop-class", f"SOPClassUID: found {name_of_uid(uid)}")
    if instance.modality not in rules.modalities:
        yield NotSelected(
            "unsupported-modality",
            f"Modality: found {instance.modality[:16]!r}, expected {', '.join(rules.modalities)}",
        )
    if instance.photometric and instance.photometric not in MONOCHROME:
        yield NotSelected(
            "colour", f"PhotometricInterpretation: found {instance.photometric[:16]!r}"
        )
    if instance.samples_per_pixel not in (None, 1):
        yield NotSelected(
            "colour", f"SamplesPerPixel: found {instance.samples_per_pixel}, expected 1"
        )
    if rules.lossy == "refuse" and instance.transfer_syntax_uid in LOSSY_SYNTAXES:
        yield NotSelected(
            "lossy-compression",
            f"TransferSyntaxUID: found {name_of_uid(instance.transfer_syntax_uid)}",
        )


def _image_reasons(instance: Instance, rules: SelectionRules) -> Iterator[NotSelected]:
    known, image = instance.known, instance.image
    sop_class = name_of_uid(known.sop_class_uid)
    if known.sop_class_uid not in MULTI_FRAME_SOP_CLASSES and image.frames > 1:
        yield NotSelected(
            "multi-frame-not-supported",
            f"NumberOfFrames: found {image.frames}, expected 1 in {sop_class}",
        )
    if known.derived_by_us and rules.denoised == "refuse":
        yield NotSelected("already-denoised", "the series was made by Stillscan")
    yield from _frame_reasons(instance.frames, rules)
    yield from _content_reasons(known.image_type, known.complex_component, "", rules)
    if known.pixel_presentation in IN_COLOUR:
        yield NotSelected("colour", f"PixelPresentation: found {known.pixel_presentation}")
    if rules.burned_in == "refuse" and known.burned_in == "YES":
        yield NotSelected("burned-in-annotation", "BurnedInAnnotation: found YES")
    if rules.lossy == "refuse" and known.lossy == "01":
        yield NotSelected("lossy-compression", "LossyImageCompression: found 01")
    if min(image.rows, image.columns) < rules.min_matrix:
        yield NotSelected(
            "too-few-pixels",
            f"Rows x Columns: found {image.rows} x {image.columns}, "
            f"expected at least {rules.min_matrix} x {rules.min_matrix}",
        )
    yield from _description_reasons(known, rules)


def _frame_reasons(
    frames: Sequence[FrameAttributes], rules: SelectionRules
) -> Iterator[NotSelected]:
    """What speaks against all frames; or against some, which leaves no whole instance (W1)."""
    kinds: dict[tuple[object, ...], NotSelected | None] = {}
    for frame in frames:
        kind = (frame.frame_type, frame.complex_component, frame.calculation)
        if kind not in kinds:
            kinds[kind] = next(_content_reasons(*kind, rules), None)
    reasons = [reason for reason in kinds.values() if reason is not None]
    if reasons and len(reasons) < len(kinds):
        yield NotSelected(
            "mixed-frame-types",
            f"some frames are images, others are not to be processed: {reasons[0].message}",
        )
    yield from reasons


def _content_reasons(
    image_type: Sequence[str], component: str, calculation: str, rules: SelectionRules
) -> Iterator[NotSelected]:
    value_3, value_4 = (*image_type[2:4], "", "")[:2]
    for policy, reason, kinds_3, kinds_4 in (
        (rules.localizers, "localizer", LOCALIZER, LOCALIZER),
        (rules.complex_images, "phase-or-complex", COMPLEX_3, COMPLEX_4),
        (rules.maps, "quantitative-map", MAPS_3, MAPS_4),
        (rules.reformatted, "reformatted", REFORMATTED, REFORMATTED_4),
        (rules.burned_in, "burned-in-annotation", SCREEN, SCREEN),
    ):
        if policy == "refuse" and value_3 in kinds_3:
            yield NotSelected(reason, f"ImageType: found {value_3} as value 3")
        if policy == "refuse" and value_4 in kinds_4:
            yield NotSelected(reason, f"ImageType: found {value_4} as value 4")
    if rules.complex_images == "refuse":
        if value_3.startswith(COMPLEX_PREFIXES):
            yield NotSelected("phase-or-complex", f"ImageType: found {value_3[:16]} as value 3")
        if component in COMPONENTS_WITH_SIGN:
            yield NotSelected("phase-or-complex", f"complex image component: found {component}")
    if rules.reformatted == "refuse" and calculation in CALCULATIONS:
        yield NotSelected("reformatted", f"VolumeBasedCalculationTechnique: found {calculation}")


def _description_reasons(instance: Identification, rules: SelectionRules) -> Iterator[NotSelected]:
    matches = _matcher(instance.series_description)
    if rules.descriptions and not any(map(matches, rules.descriptions)):
        yield NotSelected("description-not-chosen", "SeriesDescription matches no chosen pattern")
    for pattern in filter(matches, rules.excluded_descriptions):
        yield NotSelected(
            "description-excluded", f"SeriesDescription matches the excluded pattern {pattern!r}"
        )


def _matcher(description: str) -> Callable[[str], bool]:
    return lambda pattern: fnmatchcase(description.casefold(), pattern.casefold())
