"""Multi-frame instances for tests: Enhanced MR and CT, and Legacy Converted Enhanced.

    (file,) = make_enhanced(tmp_path, modality="CT", frames=6)
    files = make_enhanced(tmp_path, modality="MR", instances=3, per_frame_slope=True)
    (file,) = make_legacy_converted(tmp_path, modality="MR", slices=5)

The pixels are those of `series_factory`; what an image shows follows from the arguments.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from tests.series_factory import make_series, phantom, write_instance
from tests.series_modules import _code, _patient_and_study, _series_and_equipment, item

SPACING_MM = 3.0


def make_enhanced(
    folder: Path,
    *,
    modality: str = "CT",
    frames: int = 4,
    instances: int = 1,
    rows: int = 48,
    columns: int = 40,
    signed: bool = False,
    bits_stored: int = 12,
    slope: float = 1.0,
    intercept: float | None = None,
    per_frame_slope: bool = False,
    order: Sequence[int] | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    seed: int = 0,
    **attributes: object,
) -> list[Path]:
    """Write one series of Enhanced MR or CT instances, each with `frames` frames of one stack.

    Args:
        folder: made if needed.
        modality: MR or CT.
        frames: of each instance.
        instances: each is one repetition of the stack.
        rows: of the matrix.
        columns: of the matrix.
        signed: PixelRepresentation 1.
        bits_stored: 8 to 16.
        slope: RescaleSlope.
        intercept: RescaleIntercept; None for -1024 in unsigned CT, else 0.
        per_frame_slope: slopes grow by a fraction from frame to frame.
        order: which position in space each frame has; None for that of the file.
        transfer_syntax: as in `make_series`.
        seed: of the noise, and of every UID.
        attributes: DICOM keywords to set on every instance; None deletes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if intercept is None:
        intercept = -1024.0 if modality == "CT" and not signed else 0.0
    places = list(range(frames)) if order is None else list(order)
    files = []
    for number in range(1, instances + 1):
        dataset = _patient_and_study(modality, seed)
        dataset.update(_series_and_equipment(modality, seed))
        dataset.update(_instance(modality, seed, number, frames))
        dataset.SharedFunctionalGroupsSequence = [_shared(modality, columns)]
        dataset.PerFrameFunctionalGroupsSequence = [
            _frame(
                modality, number, place, slope * (1 + 0.137 * place * per_frame_slope), intercept
            )
            for place in places
        ]
        index = (number - 1) * frames
        stored = np.stack(
            [phantom(rows, columns, index + p, signed, bits_stored, seed) for p in places]
        )
        dataset.update(
            item(
                SamplesPerPixel=1,
                PhotometricInterpretation="MONOCHROME2",
                Rows=rows,
                Columns=columns,
                BitsAllocated=16,
                BitsStored=bits_stored,
                HighBit=bits_stored - 1,
                PixelRepresentation=int(signed),
                PresentationLUTShape="IDENTITY",
            )
        )
        for keyword, value in attributes.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        path = folder / f"{modality}_enhanced_{seed}_{number:04d}.dcm"
        write_instance(dataset, stored, path, transfer_syntax)
        files.append(path)
    return files


def make_legacy_converted(folder: Path, *, modality: str = "MR", **series: object) -> list[Path]:
    """Write the legacy converted twin of what `make_series` makes of these arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as classic:
        files = make_series(Path(classic), modality=modality, **series)  # type: ignore[arg-type]
        sources = [dcmread(file) for file in files]
        convert = {
            "MR": highdicom.legacy.LegacyConvertedEnhancedMRImage,
            "CT": highdicom.legacy.LegacyConvertedEnhancedCTImage,
            "PT": highdicom.legacy.LegacyConvertedEnhancedPETImage,
        }[modality]
        converted = convert(
            sources,
            series_instance_uid=generate_uid(entropy_srcs=["legacy", modality, str(series)]),
            series_number=7,
            sop_instance_uid=generate_uid(entropy_srcs=["legacy instance", modality, str(series)]),
            instance_number=1,
        )
    path = folder / f"{modality}_legacy_converted.dcm"
    converted.save_as(path)
    return [path]


def _uid(*entropy: object) -> str:
    return generate_uid(entropy_srcs=["enhanced_factory", *map(str, entropy)])


def _instance(modality: str, seed: int, number: int, frames: int) -> Dataset:
    dimensions = _uid("dimensions", modality, seed)
    common = item(
        SOPClassUID=EnhancedMRImageStorage if modality == "MR" else EnhancedCTImageStorage,
        SOPInstanceUID=_uid("instance", modality, seed, number),
        SeriesInstanceUID=_uid("series", modality, seed),
        InstanceNumber=number,
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        NumberOfFrames=frames,
        ContentDate="20200102",
        ContentTime=f"1022{number % 60:02d}",
        AcquisitionDateTime=f"202001021021{number % 60:02d}",
        AcquisitionNumber=number,
        AcquisitionDuration=12.5,
        InstanceCreationDate="20200102",
        InstanceCreationTime="102300",
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        ContentQualification="RESEARCH",
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
        PatientPosition="HFS",
        FrameOfReferenceUID=_uid("frame of reference"),
        PositionReferenceIndicator="",
        AcquisitionContextSequence=[],
        DimensionOrganizationSequence=[item(DimensionOrganizationUID=dimensions)],
        DimensionIndexSequence=[
            item(
                DimensionIndexPointer=pointer,
                FunctionalGroupPointer=0x00209111,
                DimensionOrganizationUID=dimensions,
            )
            for pointer in (0x00209056, 0x00209057)  # StackID, InStackPositionNumber
        ],
    )
    common.update(_MODALITY[modality]())
    return common


def _mr() -> Dataset:
    return item(
        ResonantNucleus="1H",
        KSpaceFiltering="NONE",
        MagneticFieldStrength=3.0,
        ApplicableSafetyStandardAgency="IEC",
        ComplexImageComponent="MAGNITUDE",
        AcquisitionContrast="T1",
        PulseSequenceName="gre",
        MRAcquisitionType="2D",
        EchoPulseSequence="GRADIENT",
        MultiPlanarExcitation="NO",
        PhaseContrast="NO",
        TimeOfFlightContrast="NO",
        SteadyStatePulseSequence="NONE",
        EchoPlanarPulseSequence="NO",
        SaturationRecovery="NO",
        SpectrallySelectedSuppression="NONE",
        OversamplingPhase="NONE",
        GeometryOfKSpaceTraversal="RECTILINEAR",
        RectilinearPhaseEncodeReordering="LINEAR",
        SegmentedKSpaceTraversal="SINGLE",
        NumberOfKSpaceTrajectories=1,
    )


def _ct() -> Dataset:
    return item(MultienergyCTAcquisition="NO")


def _shared(modality: str, columns: int) -> Dataset:
    anatomy = _code("69536005", "SCT", "Head")
    shared = item(
        PixelMeasuresSequence=[
            item(PixelSpacing=["1.50", "0.75"], SliceThickness="3.0", SpacingBetweenSlices="3.00")
        ],
        PlaneOrientationSequence=[
            item(ImageOrientationPatient=["1", "0", "0", "0", "1.000000", "-0"])
        ],
        FrameAnatomySequence=[item(FrameLaterality="U", AnatomicRegionSequence=[anatomy])],
    )
    shared.update(_SHARED[modality](columns))
    return shared


def _mr_shared(columns: int) -> Dataset:
    return item(
        MRTimingAndRelatedParametersSequence=[
            item(
                RepetitionTime="500",
                FlipAngle="70",
                EchoTrainLength="1",
                RFEchoTrainLength=0,
                GradientEchoTrainLength=1,
                SpecificAbsorptionRateSequence=[
                    item(
                        SpecificAbsorptionRateDefinition="IEC_WHOLE_BODY",
                        SpecificAbsorptionRateValue=0.1,
                    )
                ],
                GradientOutputType="DB_DT",
                GradientOutput=10.0,
                OperatingModeSequence=[
                    item(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL")
                ],
            )
        ],
        MRFOVGeometrySequence=[
            item(
                InPlanePhaseEncodingDirection="ROW",
                MRAcquisitionFrequencyEncodingSteps=columns,
                MRAcquisitionPhaseEncodingStepsInPlane=columns,
                PercentSampling="100",
                PercentPhaseFieldOfView="100",
            )
        ],
        MREchoSequence=[item(EffectiveEchoTime=4.6)],
        MRModifierSequence=[
            item(
                InversionRecovery="NO",
                FlowCompensation="NONE",
                Spoiling="RF",
                T2Preparation="NO",
                SpectrallySelectedExcitation="NONE",
                SpatialPresaturation="NONE",
                PartialFourier="NO",
                ParallelAcquisition="NO",
            )
        ],
        MRImagingModifierSequence=[
            item(
                MagnetizationTransfer="NONE",
                BloodSignalNulling="NO",
                Tagging="NONE",
                TransmitterFrequency=123.2,
                PixelBandwidth="200",
            )
        ],
        MRReceiveCoilSequence=[
            item(
                ReceiveCoilName="HEAD",
                ReceiveCoilManufacturerName="",
                ReceiveCoilType="VOLUME",
                QuadratureReceiveCoil="NO",
            )
        ],
        MRTransmitCoilSequence=[
            item(TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY")
        ],
        MRAveragesSequence=[item(NumberOfAverages="1")],
    )


def _ct_shared(columns: int) -> Dataset:
    return item(
        CTAcquisitionTypeSequence=[
            item(AcquisitionType="SEQUENCED", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
        ],
        CTAcquisitionDetailsSequence=[
            item(
                RotationDirection="CW",
                RevolutionTime=0.5,
                SingleCollimationWidth=0.6,
                TotalCollimationWidth=19.2,
                TableHeight="120",
                GantryDetectorTilt="0",
                DataCollectionDiameter="500",
            )
        ],
        CTTableDynamicsSequence=[item(TableSpeed=10.0)],
        CTGeometrySequence=[
            item(DistanceSourceToDetector="1000", DistanceSourceToDataCollectionCenter=550.0)
        ],
        CTReconstructionSequence=[
            item(
                ReconstructionAlgorithm="FILTER_BACK_PROJ",
                ConvolutionKernel="H30s",
                ConvolutionKernelGroup="BRAIN",
                ReconstructionPixelSpacing=[1.5, 0.75],
                ReconstructionAngle=360.0,
                ImageFilter="NONE",
            )
        ],
        CTExposureSequence=[
            item(
                ExposureModulationType="NONE",
                ExposureTimeInms=500.0,
                XRayTubeCurrentInmA=200.0,
                ExposureInmAs=100.0,
                CTDIvol=10.0,
            )
        ],
        CTXRayDetailsSequence=[
            item(
                KVP="120",
                FocalSpots="1.2",
                FilterType="FLAT",
                FilterMaterial="ALUMINUM",
                CalciumScoringMassFactorPatient=1.0,
            )
        ],
    )


def _frame(modality: str, number: int, place: int, slope: float, intercept: float) -> Dataset:
    kind = "MRImageFrameTypeSequence" if modality == "MR" else "CTImageFrameTypeSequence"
    frame_type = item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    if modality == "MR":
        frame_type.update(item(ComplexImageComponent="MAGNITUDE", AcquisitionContrast="T1"))
    frame = item(
        FrameContentSequence=[
            item(
                FrameAcquisitionNumber=number,
                FrameAcquisitionDateTime=f"202001021021{number % 60:02d}",
                FrameReferenceDateTime=f"202001021021{number % 60:02d}",
                FrameAcquisitionDuration=50.0,
                StackID="1",
                InStackPositionNumber=place + 1,
                DimensionIndexValues=[1, place + 1],
            )
        ],
        PlanePositionSequence=[
            item(ImagePositionPatient=["-30.5", "-4.05e1", f"{place * SPACING_MM:.5f}"])
        ],
        FrameVOILUTSequence=[item(WindowCenter="40", WindowWidth="400")],
        PixelValueTransformationSequence=[
            item(
                RescaleIntercept=f"{intercept:.10g}",
                RescaleSlope=f"{slope:.10g}",
                RescaleType="HU" if modality == "CT" else "US",
            )
        ],
    )
    setattr(frame, kind, [frame_type])
    if modality == "CT":
        frame.CTPositionSequence = [
            item(
                TablePosition=place * SPACING_MM,
                DataCollectionCenterPatient=[0.0, 0.0, place * SPACING_MM],
                ReconstructionTargetCenterPatient=[0.0, 0.0, place * SPACING_MM],
            )
        ]
        frame.IrradiationEventIdentificationSequence = [
            item(IrradiationEventUID=_uid("irradiation", number))
        ]
    return frame


_MODALITY = {"MR": _mr, "CT": _ct}
_SHARED = {"MR": _mr_shared, "CT": _ct_shared}
ENHANCED: dict[str, Callable[[Path], list[Path]]] = {  # every kind that we claim to derive
    "Enhanced CT": lambda folder: make_enhanced(folder, modality="CT", frames=5),
    "Enhanced CT signed": lambda folder: make_enhanced(folder, modality="CT", signed=True),
    "Enhanced MR": lambda folder: make_enhanced(folder, modality="MR", instances=3),
    "Enhanced MR slopes per frame": lambda folder: make_enhanced(
        folder, modality="MR", per_frame_slope=True, slope=2.71
    ),
    "Enhanced MR frames out of order": lambda folder: make_enhanced(
        folder, modality="MR", frames=6, order=(3, 0, 5, 1, 4, 2)
    ),
    "Legacy Converted Enhanced MR": lambda folder: make_legacy_converted(folder, modality="MR"),
    "Legacy Converted Enhanced CT": lambda folder: make_legacy_converted(folder, modality="CT"),
    "Legacy Converted Enhanced PET": lambda folder: make_legacy_converted(folder, modality="PT"),
}
