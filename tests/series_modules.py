"""The headers of `series_factory`: patient to plane, and what each modality has of its own."""

from __future__ import annotations

from collections.abc import Callable

from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

SLICE_SPACING_MM = 3.0
SOP_CLASSES = {
    "MR": MRImageStorage,
    "CT": CTImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
}


def header(modality: str, seed: int, index: int, slices: int) -> Dataset:
    """The header of instance `index` of `slices`, without what describes its pixels."""
    dataset = _patient_and_study(modality, seed)
    dataset.update(_series_and_equipment(modality, seed))
    dataset.update(_image(modality, seed, index))
    if modality in ("MR", "CT", "PT"):
        dataset.update(_plane(index))
    dataset.update(_MODALITY_MODULES[modality](index, slices))
    return dataset


def _uid(*entropy: object) -> str:
    return generate_uid(entropy_srcs=["series_factory", *map(str, entropy)])


def item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _patient_and_study(modality: str, seed: int) -> Dataset:
    return item(
        SpecificCharacterSet="ISO_IR 100",
        PatientName=f"Phantom^Seed{seed}",
        PatientID=f"PH{seed:04d}",
        PatientBirthDate="19700101",
        PatientSex="O",
        PatientAge="050Y",
        PatientWeight="70",
        StudyInstanceUID=_uid("study", modality, seed),
        StudyDate="20200102",
        StudyTime="101112",
        StudyID=f"S{seed}",
        StudyDescription="Phantom study",
        ReferringPhysicianName="",
        AccessionNumber="",
    )


def _series_and_equipment(modality: str, seed: int) -> Dataset:
    return item(
        Modality=modality,
        SeriesInstanceUID=_uid("series", modality, seed),
        SeriesNumber=3,
        SeriesDate="20200102",
        SeriesTime="102030",
        SeriesDescription=f"{modality} phantom",
        BodyPartExamined="HEAD",
        Manufacturer="Stillscan tests",
        ManufacturerModelName="series_factory",
        InstitutionName="Test bench",
        DeviceSerialNumber="1",
        SoftwareVersions="1",
    )


def _image(modality: str, seed: int, index: int) -> Dataset:
    return item(
        SOPClassUID=SOP_CLASSES[modality],
        SOPInstanceUID=_uid("instance", modality, seed, index),
        InstanceNumber=index + 1,
        PatientOrientation=["L", "P"],
        AcquisitionNumber=1,
        AcquisitionDate="20200102",
        AcquisitionTime=f"1021{index % 60:02d}",
        ContentDate="20200102",
        ContentTime=f"1022{index % 60:02d}",
        InstanceCreationDate="20200102",
        InstanceCreationTime=f"1022{index % 60:02d}",
        BurnedInAnnotation="NO",
        LossyImageCompression="00",
    )


def _plane(index: int) -> Dataset:
    return item(
        FrameOfReferenceUID=_uid("frame of reference"),
        PositionReferenceIndicator="",
        PixelSpacing=["1.50", "0.75"],
        ImageOrientationPatient=["1", "0", "0", "0", "1.000000", "-0"],
        ImagePositionPatient=["-30.5", "-4.05e1", f"{index * SLICE_SPACING_MM:.5f}"],
        SliceThickness="3.0",
        SliceLocation=f"{index * SLICE_SPACING_MM:.2f}",
    )


def _mr(index: int, slices: int) -> Dataset:
    return item(
        ImageType=["ORIGINAL", "PRIMARY", "M", "ND"],
        PatientPosition="HFS",
        ScanningSequence="GR",
        SequenceVariant="SP",
        ScanOptions="",
        MRAcquisitionType="2D",
        RepetitionTime="500",
        EchoTime="4.6",
        EchoTrainLength="1",
        FlipAngle="70",
        MagneticFieldStrength="3",
        SpacingBetweenSlices=f"{SLICE_SPACING_MM}",
    )


def _ct(index: int, slices: int) -> Dataset:
    return item(
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        PatientPosition="HFS",
        KVP="120",
        XRayTubeCurrent="200",
        ExposureTime="500",
        ConvolutionKernel="H30s",
        ReconstructionDiameter="500",
    )


def _pt(index: int, slices: int) -> Dataset:
    isotope = item(
        Radiopharmaceutical="FDG",
        RadiopharmaceuticalStartTime="091500",
        RadionuclideTotalDose="350000000",
        RadionuclideHalfLife="6586.2",
        RadionuclidePositronFraction="0.97",
        RadionuclideCodeSequence=[_code("C-111A1", "SRT", "^18^Fluorine")],
    )
    return item(
        ImageType=["ORIGINAL", "PRIMARY"],
        Units="BQML",
        CountsSource="EMISSION",
        SeriesType=["STATIC", "IMAGE"],
        NumberOfSlices=slices,
        CorrectedImage=["DECY", "ATTN", "SCAT"],
        DecayCorrection="START",
        RandomsCorrectionMethod="DLYD",
        CollimatorType="NONE",
        ImageIndex=index + 1,
        FrameReferenceTime="1200.5",
        ActualFrameDuration="120000",
        DecayFactor="1.07",
        RadiopharmaceuticalInformationSequence=[isotope],
        PatientOrientationCodeSequence=[
            item(
                CodeValue="F-10450",
                CodingSchemeDesignator="SRT",
                CodeMeaning="recumbent",
                PatientOrientationModifierCodeSequence=[_code("F-10340", "SRT", "supine")],
            )
        ],
        PatientGantryRelationshipCodeSequence=[_code("F-10470", "SRT", "headfirst")],
    )


def _cr(index: int, slices: int) -> Dataset:
    return item(
        ImageType=["ORIGINAL", "PRIMARY"],
        BodyPartExamined="CHEST",
        ViewPosition="PA",
        KVP="110",
        ImagerPixelSpacing=["0.20", "0.200"],
        PixelSpacing=["0.20", "0.200"],
        PixelSpacingCalibrationType="GEOMETRY",
        PixelSpacingCalibrationDescription="Phantom",
    )


def _dx(index: int, slices: int) -> Dataset:
    view = _code("R-10214", "SRT", "postero-anterior")
    view.ViewModifierCodeSequence = []
    return item(
        ImageType=["ORIGINAL", "PRIMARY", ""],
        PresentationIntentType="FOR PRESENTATION",
        BodyPartExamined="CHEST",
        AnatomicRegionSequence=[_code("T-D3000", "SRT", "Chest")],
        ImageLaterality="U",
        PixelIntensityRelationship="LOG",
        PixelIntensityRelationshipSign=-1,
        PresentationLUTShape="IDENTITY",
        DetectorType="DIRECT",
        ImagerPixelSpacing=["0.143", "0.1430"],
        ViewCodeSequence=[view],
        PositionerType="NONE",
        AcquisitionContextSequence=[],
    )


_MODALITY_MODULES: dict[str, Callable[[int, int], Dataset]] = {
    "MR": _mr,
    "CT": _ct,
    "PT": _pt,
    "CR": _cr,
    "DX": _dx,
}
