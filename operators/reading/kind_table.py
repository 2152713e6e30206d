"""Table of the words by which headers declare the kind of an image; a site can add rows.

An image is denoised unless a row shows that its pixels are something else: a map of a quantity, a
phase, a projection. Each row names its source. `image_kinds` applies the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "image",
    "localizer",
    "phase-or-complex",
    "quantitative-map",
    "reformatted",
    "burned-in-annotation",
    "dynamic-series",
    "single-photon",
]
IMAGE_TYPE = "ImageType"
COMPONENT = "ComplexImageComponent"
CALCULATION = "VolumeBasedCalculationTechnique"
UNIT = "RescaleType"  # of PET: Units
MAPPED_UNIT = "MeasurementUnitsCodeSequence"  # of a RealWorldValueMappingSequence
QUANTITY = "QuantityDefinitionSequence"  # likewise
DESCRIPTION = "SeriesDescription"
SERIES_TYPE, REPROJECTION, UNITS = "SeriesType", "ReprojectionMethod", "Units"  # of PET
MANUFACTURER, RADIONUCLIDE = "Manufacturer", "RadionuclideCodeSequence"  # likewise
UNSCALED = "unscaled counts"  # Units CNTS without Philips' scale factor
GE_COMPONENT, GE_IMAGE = '(0043,"GEMS_PARM_01",2f)', '(0043,"GEMS_PARM_01",30)'
GE_SEQUENCE, GE_INNER_SEQUENCE = '(0019,"GEMS_ACQU_01",9c)', '(0019,"GEMS_ACQU_01",9e)'


@dataclass(frozen=True)
class KindRow:
    """The words by which an attribute declares the kind of an image.

    Attributes:
        reason: why such an image is not denoised; `image`: these words mark an ordinary image, and
            other rows ignore them.
        words: `MIN IP` matches where these letters are separate words, one after the other, with
            anything between them: "MIN_IP", "CT MIN-IP 3D". With `*`, `?` or `[ ]` it is a
            pattern for the whole value, or for its letters and digits alone. Case does not count.
        attribute: the attribute that is read.
        modalities: modalities to which the row applies; none: all.
        first_value: of ImageType, the first value that is read, counted from 1.
        derived: only where value 1 of ImageType is DERIVED.
        source: document that defines these words.
    """

    reason: Reason
    words: tuple[str, ...]
    attribute: str = IMAGE_TYPE
    modalities: tuple[str, ...] = ()
    first_value: int = 1
    derived: bool = False
    source: str = "settings"

    def __post_init__(self) -> None:
        """Refuse a row that can never match.

        Raises:
            ValueError: if there are no words.
        """
        if not self.words or not all(map(str.strip, self.words)):
            raise ValueError("'words' needs at least one word")


MR, SECTIONAL = ("MR",), ("MR", "CT", "PT")


def words(text: str) -> tuple[str, ...]:
    """Return the words of a row from a comma-separated text."""
    return tuple(text.split(", "))


PHYSICAL_UNITS = words(
    "Hz, kHz, MHz, hertz, s, sec, second, seconds, ms, msec, millisecond, milliseconds, usec, min, "
    "minute, minutes, mm, um, cm, nm, rad, mrad, radian, radians, deg, degree, degrees, k, kelvin, "
    "cel, degc, celsius, pa, kpa, t, mt, ut, nt, gauss, tesla, ppm, ppb, mol, mmol, mg, kg, ml, "
    "cc, %, percent, pct, mgml, adc, fa, cbf, cbv, mtt, ttp"
)
# Sections of PS3.3 as of 2024. Compared with the published text: all but C.8.13.1.1.1.3 and .4 (as
# C.8.14.5.1.1.3 and .4 for spectroscopy) and C.8.15.2.1.1.4 (before Multi-energy CT Images, .5).
# Terms of multi-energy CT: PS3.17 JJJJ. Context groups of PS3.16: by the tables of pydicom 3.0.
TABLE = (
    # Words that look like one of those below
    KindRow(
        "image",
        words(
            "IN PHASE, OUT PHASE, OUT OF PHASE, OPP PHASE, OPPOSED PHASE, MULTI PHASE, "
            "PHASE CONTRAST, REAL TIME"
        ),
        source="Siemens Dixon (UCL/pet-rd-tools#11: IN_PHASE); Philips PHASE CONTRAST M; "
        "PS3.3 C.8.13.1.1.1.3",
    ),
    KindRow(
        "image", ("TENSOR B0",), source="Siemens XA30, mean of b = 0 (neurolabusc/dcm_qa_xa30)"
    ),
    # Localizers and screens
    KindRow(
        "localizer",
        ("LOCALIZER", "LOCALISER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SURVIEW", "SURVEY"),
        source="PS3.3 C.8.2.1.1.1, C.8.16.1.3; names of the manufacturers",
    ),
    KindRow(
        "localizer",
        ("*SURVEY*",),
        DESCRIPTION,
        MR,
        source="Philips: only its name distinguishes a survey from other M_FFE series",
    ),
    KindRow(
        "burned-in-annotation",
        ("*SCREENSAVE*", "*SCREENCAPTURE*", "*SCREENSHOT*", "*POSDISP*"),
        source="GE SCREEN SAVE; Siemens CSA POSDISP (rordenlab/dcm2niix, nii_dicom.cpp)",
    ),
    # Phase, real and imaginary parts
    KindRow(
        "phase-or-complex",
        ("PHASE", "IMAGINARY", "REAL", "*PHASEMAP*", "*VELOCITYMAP*"),
        modalities=MR,
        source="PS3.3 C.8.3.1.1.1, C.8.13.3.1.1",
    ),
    KindRow(
        "phase-or-complex",
        ("[PRI]", "[PRI][ _-]*"),
        modalities=MR,
        source="Siemens P; Philips R_IR, I_FFE (conformance statement of Intera R7 to R9, 3-28)",
    ),
    KindRow(
        "phase-or-complex", ("VELOCITY",), modalities=MR, first_value=4, source="PS3.3 C.8.16.1.4"
    ),
    KindRow(
        "phase-or-complex",
        ("PHASE", "REAL", "IMAGINARY", "MIXED"),
        COMPONENT,
        source="PS3.3 C.8.13.3.1.1",
    ),
    KindRow(
        "phase-or-complex",
        ("1", "2", "3"),
        GE_COMPONENT,
        source="GE: phase, real, imaginary (rordenlab/dcm2niix, nii_dicom.cpp)",
    ),
    # Maps of quantities
    KindRow(
        "quantitative-map",
        ("MAP", "MAPS", "*MAP", "*MAPS", "*UMAP*"),
        modalities=SECTIONAL,
        source="PS3.3 C.8.3.1.1.1; Philips B0 MAP (rordenlab/dcm2niix#455); Siemens MRPET_UMAP3D "
        "(UCL/pet-rd-tools#11)",
    ),
    KindRow(
        "quantitative-map",
        ("B0",),
        modalities=MR,
        source="Philips R11 field maps (rordenlab/dcm2niix#455)",
    ),
    KindRow(
        "quantitative-map",
        ("ADC", "EADC", "EXPADC", "FA", "COLFA", "TENSOR"),
        modalities=SECTIONAL,
        source="PS3.3 C.8.13.1.1.1.4; Siemens (neurolabusc/dcm_qa_xa30)",
    ),
    KindRow(
        "quantitative-map",
        words(
            "CBF, CBV, MTT, TTP, TMAX, RCBF, RCBV, RELCBF, RELCBV, RELMTT, RELTTP, "
            "PBP, GBP, KTRANS, KEP, IAUC, PERMEABILITY"
        ),
        modalities=SECTIONAL,
        source="PS3.3 C.8.13.1.1.1.4, C.8.15.2.1.1.4; Siemens; PS3.16 CID 4107 to 4109",
    ),
    KindRow(
        "quantitative-map",
        ("BF", "BV", "VE", "VP"),
        modalities=SECTIONAL,
        derived=True,
        source="Siemens AXIAL, CT_SOM7 VPCT, BF (public code that sorts perfusion CT); PS3.16 "
        "CID 4107",
    ),
    KindRow(
        "quantitative-map",
        ("T1", "T2", "T2 STAR", "R2", "R2 STAR", "RHO", "TEMPERATURE", "TCS", "SCM", "NEI"),
        modalities=MR,
        first_value=4,
        source="PS3.3 C.8.13.1.1.1.4; as value 3 T1, T2 and TEMPERATURE are a weighting",
    ),
    KindRow(
        "quantitative-map",
        ("FF", "PDFF", "FAT FRACTION", "WATER FRACTION", "STIFFNESS"),
        modalities=MR,
        source="Philips FF; PS3.16 CID 7180; GE MR-Touch",
    ),
    KindRow(
        "quantitative-map",
        words(
            "DIFFUSION ANISO, R COEFFICIENT, QUANTITY, STD DEVIATION, T TEST, Z SCORE, "
            "*TTEST*, *ZSCORE*"
        ),
        modalities=SECTIONAL,
        source="PS3.3 C.8.16.1.4, C.8.13.1.1.1.4; Siemens TTEST (Open-Minds-Lab/mrQA#49)",
    ),
    KindRow(
        "quantitative-map",
        ("MAT SPECIFIC", "MAT FRACTIONAL", "MAT VALUE BASED", "EFF ATOMIC NUM", "ELECTRON DENSITY"),
        modalities=("CT",),
        source="PS3.3 C.8.15.2.1.1.4",
    ),
    KindRow(
        "quantitative-map",
        ("PROCESSED",),
        modalities=MR,
        derived=True,
        source="GE: computed maps are DERIVED, SECONDARY, PROCESSED (rordenlab/dcm2niix#574)",
    ),
    KindRow(
        "quantitative-map",
        ("1[789]", "[23]?"),
        GE_IMAGE,
        source="GE: 14 and 16 are acquired, 18 is FA, 19 a trace (rordenlab/dcm2niix#574)",
    ),
    KindRow(
        "quantitative-map",
        ("*B0MAP*", "*B0RF*"),
        GE_SEQUENCE,
        source="GE field maps: Hz and magnitude in one series (rordenlab/dcm2niix#501)",
    ),
    KindRow(
        "quantitative-map",
        ("*B0MAP*",),
        GE_INNER_SEQUENCE,
        source="GE field maps (rordenlab/dcm2niix#501)",
    ),
    # Reformatted and projected
    KindRow(
        "reformatted",
        words(
            "MPR, CPR, MIP, *MIP, *MINIP*, *MAXIP*, MNIP, REFORMATTED, RESAMPLED, "
            "PROJECTION IMAGE, VRT, SSD, 3D RENDERING, VOLUME RENDERING, *CSAPARALLEL*"
        ),
        source="PS3.3 C.8.3.1.1.1, C.8.16.1.4; GE REFORMATTED; Siemens CT_SOM5 MIP, CSA MPR, MNIP",
    ),
    KindRow(
        "reformatted",
        ("MAXIMUM", "MINIMUM"),
        modalities=SECTIONAL,
        first_value=4,
        source="PS3.3 C.8.16.1.4: over frames",
    ),
    KindRow(
        "reformatted",
        ("MAX IP", "MIN IP", "MPR", "CURVED MPR", "VOLUME RENDER", "SURFACE RENDER", "MIXED"),
        CALCULATION,
        source="PS3.3 C.8.16.2",
    ),
    # What a pixel is
    KindRow(
        "image",
        ("HU MOD", "HU", "*HOUNSFIELD*", "HNSF U", "US"),
        UNIT,
        ("CT",),
        source="PS3.3 C.11.1.1.2",
    ),
    KindRow(
        "quantitative-map",
        ("*",),
        UNIT,
        ("CT",),
        source="PS3.3 C.11.1.1.2: OD, MGML, Z_EFF, ED, EDW, PCT and others are no HU",
    ),
    KindRow(
        "image",
        ("CNTS", "NONE", "BQML", "GML", "US"),
        UNIT,
        ("PT",),
        source="PS3.3 C.8.9.1.1.3: activity, uptake, counts",
    ),
    KindRow(
        "quantitative-map",
        ("*",),
        UNIT,
        ("PT",),
        source="PS3.3 C.8.9.1.1.3: rates, proportions, attenuation, perfusion, percent and others",
    ),
    KindRow(
        "quantitative-map",
        (UNSCALED,),
        UNITS,
        ("PT",),
        source="PS3.3 C.8.9.1.1.3: counts without a factor to activity; Philips has one in "
        "(7053,xx00) and (7053,xx09)",
    ),
    KindRow("reformatted", ("*",), REPROJECTION, ("PT",), source="PS3.3 C.8.9.1"),
    KindRow("reformatted", ("REPROJECTION",), SERIES_TYPE, ("PT",), source="PS3.3 C.8.9.1.1.4"),
    KindRow(
        "dynamic-series",
        ("DYNAMIC", "GATED"),
        SERIES_TYPE,
        ("PT",),
        source="PS3.3 C.8.9.1.1.4: counts of frames of one place differ up to a hundredfold",
    ),
    KindRow(
        "single-photon",
        ("SIEMENS NM",),
        MANUFACTURER,
        ("PT",),
        source="Siemens xSPECT stores single-photon images as PET Image Storage",
    ),
    KindRow(
        "single-photon",
        words(
            "72454006, C163A8, *99MTECHNETIUM*, *TECHNETIUM99M*, *TC99M*, *99MTC*, "
            "56609000, C145A4, *111INDIUM*, *INDIUM111*, 21572004, C114A4, *123IODINE*, "
            "*IODINE123*, 1368003, C114B1, *131IODINE*, *IODINE131*, 447553000, C101ED, "
            "*177LUTETIUM*, *LUTETIUM177*, 60057003, C138A9, *201THALLIUM*, *THALLIUM201*, "
            "2008008, C131A2, *67GALLIUM*, *GALLIUM67*, 80751004, C172A8, *133XENON*, *XENON133*"
        ),
        RADIONUCLIDE,
        ("PT",),
        source="PS3.16 CID 18 without CID 4020: radionuclides that emit single photons",
    ),
    KindRow(
        "quantitative-map",
        PHYSICAL_UNITS,
        UNIT,
        MR,
        source="PS3.3 C.11.1.1.2; Philips Hz (rordenlab/dcm2niix#455)",
    ),
    KindRow("quantitative-map", PHYSICAL_UNITS, MAPPED_UNIT, MR, source="PS3.3 C.7.6.16.2.11"),
    KindRow(
        "image",
        ("11080[0-6]", "11081[678]", "11082[01]", "110852", "112031", "129321", "12640[0-6]"),
        QUANTITY,
        source="PS3.16 CID 7180: signal intensity, attenuation, activity, uptake",
    ),
    KindRow("quantitative-map", ("*",), QUANTITY, source="PS3.16 CID 7180: other quantities"),
)
