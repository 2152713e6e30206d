"""Complete classic MR, CT, PT, CR and DX series for tests: small, in every lossless encoding.

    files = make_series(tmp_path, modality="PT", per_slice_slope=True)
    files = make_series(tmp_path, transfer_syntax=JPEG2000Lossless, PatientName="Test^Other")

They are free of dciodvfy errors. The image is a smooth phantom (a body, two soft inserts, a fine
grid) with white noise. What it shows and every UID follow from the arguments, so the same call
makes the same series.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import gdcm
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.series_modules import SOP_CLASSES, header, item

__all__ = ["COMPRESSED_SYNTAXES", "NATIVE_SYNTAXES", "SOP_CLASSES", "make_series", "write_instance"]

NOISE = 0.02  # standard deviation of the noise, as a share of the stored range
NATIVE_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
COMPRESSED_SYNTAXES = (
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    RLELossless,
)
GDCM_SYNTAXES = (JPEGLossless, JPEGLosslessSV1, JPEG2000Lossless)  # pydicom has no encoder here


def make_series(
    folder: Path,
    *,
    modality: str = "MR",
    slices: int | None = None,
    rows: int = 64,
    columns: int = 64,
    signed: bool = False,
    bits_stored: int | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    photometric: str = "MONOCHROME2",
    slope: float = 1.0,
    intercept: float | None = None,
    per_slice_slope: bool = False,
    seed: int = 0,
    padding: int | tuple[int, int] | None = None,
    **attributes: object,
) -> list[Path]:
    """Write one series into `folder` and return its files in the order of InstanceNumber.

    Args:
        folder: made if needed; files are named `<modality>_<seed>_<instance number>.dcm`.
        modality: MR, CT, PT, CR or DX.
        slices: number of instances; None for 4, and for 1 of a radiograph, which stands alone.
        rows: of the matrix.
        columns: of the matrix.
        signed: PixelRepresentation 1.
        bits_stored: 8 to 16; None for what the modality usually has (12, PT 16). 8 bits are
            allocated 8 where the IOD allows it (CR, DX).
        transfer_syntax: one of NATIVE_SYNTAXES or COMPRESSED_SYNTAXES.
        photometric: MONOCHROME1 or MONOCHROME2 (stored values are inverted for MONOCHROME1).
        slope: RescaleSlope; MR carries it only where it is not 1.
        intercept: RescaleIntercept; None for -1024 in unsigned CT, else 0.
        per_slice_slope: slopes grow by a fraction from slice to slice, as in PET and Philips MR.
        seed: of the noise, and of every UID: another seed is another patient.
        padding: PixelPaddingValue, or (PixelPaddingValue, PixelPaddingRangeLimit); a disc's outside
            is then padded with it (with values all over the range).
        attributes: DICOM keywords to set on every instance; None deletes, a function of the
            instance's index gives the value per instance.

    Returns:
        The files, one per instance.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if slices is None:
        slices = 1 if modality in ("CR", "DX") else 4
    if bits_stored is None:
        bits_stored = 16 if modality == "PT" else 12
    if intercept is None:
        intercept = -1024.0 if modality == "CT" and not signed else 0.0
    files = []
    for index in range(slices):
        dataset = header(modality, seed, index, slices)
        slice_slope = slope * (1 + 0.137 * index) if per_slice_slope else slope
        dataset.update(_rescale(modality, slice_slope, intercept))
        stored = phantom(rows, columns, index, signed, bits_stored, seed)
        if photometric == "MONOCHROME1":
            stored = (stored.min() + stored.max() - stored).astype(stored.dtype)
        if padding is not None:
            dataset.update(_padding(stored, padding))
        dataset.update(_pixel_description(stored, modality, signed, bits_stored, photometric))
        dataset.update(_window(stored, slice_slope, intercept))
        for keyword, value in attributes.items():
            _set(dataset, keyword, value(index) if callable(value) else value)
        path = folder / f"{modality}_{seed}_{index + 1:04d}.dcm"
        write_instance(dataset, stored, path, transfer_syntax)
        files.append(path)
    return files


def phantom(
    rows: int, columns: int, index: int, signed: bool, bits_stored: int, seed: int
) -> np.ndarray:
    """Stored values of slice `index`: a body with inserts and a fine grid, plus white noise."""
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]

    def soft(distance: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(np.clip(distance * 40, -60, 60)))

    body = soft(np.hypot(y / 0.9, x / 0.75) - 1)
    left = soft(np.hypot(y + 0.25, x + 0.3) - 0.2)
    right = soft(np.hypot(y - 0.3, x - 0.2 - 0.02 * index) - 0.25)
    grid = 0.5 * (1 + np.sign(np.sin(24 * np.pi * x) * np.sin(24 * np.pi * y)))
    clean = 0.12 + body * (0.4 + 0.3 * left - 0.15 * right + 0.08 * grid * right)
    noise = np.random.default_rng([seed, index]).normal(scale=NOISE, size=(rows, columns))
    levels = 2**bits_stored
    values = np.rint(np.clip(clean + noise, 0, 1) * (levels - 1)).astype(np.int64)
    if signed:
        values -= levels // 2
    return values.astype(_dtype(signed, 16 if bits_stored > 8 else 8))


def write_instance(
    dataset: Dataset, stored: np.ndarray, path: Path, transfer_syntax: str = ExplicitVRLittleEndian
) -> None:
    """Write `dataset` with these stored values as a Part 10 file in this transfer syntax."""
    allocated = dataset.BitsAllocated
    stored = stored.astype(_dtype(dataset.PixelRepresentation == 1, allocated))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    native = transfer_syntax in NATIVE_SYNTAXES
    meta.TransferSyntaxUID = transfer_syntax if native else ExplicitVRLittleEndian
    dataset.file_meta = meta
    if transfer_syntax == ExplicitVRBigEndian:
        stored = stored.byteswap()
    pixels = stored.tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    if transfer_syntax in GDCM_SYNTAXES:
        dataset.PixelData = _encapsulated_by_gdcm(dataset, path.parent, transfer_syntax)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        meta.TransferSyntaxUID = transfer_syntax
    elif not native:
        # gdcm, pydicom's first choice for RLE, aborts the process on odd sizes
        plugin = "pydicom" if transfer_syntax == RLELossless else ""
        dataset.compress(transfer_syntax, generate_instance_uid=False, encoding_plugin=plugin)
    dataset.save_as(path, enforce_file_format=True)


def _encapsulated_by_gdcm(dataset: Dataset, folder: Path, transfer_syntax: str) -> bytes:
    """Gdcm encodes from file to file, and its writer spells numbers anew: take the pixels alone."""
    with (
        tempfile.NamedTemporaryFile(dir=folder, suffix=".native") as native,
        tempfile.NamedTemporaryFile(dir=folder, suffix=".compressed") as compressed,
    ):
        dataset.save_as(native.name, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(native.name)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(
            gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(transfer_syntax)))
        )
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(compressed.name)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return bytes(dcmread(compressed.name).PixelData)


def _dtype(signed: bool, allocated: int) -> str:
    return f"<{'i' if signed else 'u'}{allocated // 8}"


def _set(dataset: Dataset, keyword: str, value: object) -> None:
    if value is not None:
        setattr(dataset, keyword, value)
    elif keyword in dataset:
        delattr(dataset, keyword)


def _rescale(modality: str, slope: float, intercept: float) -> Dataset:
    if modality in ("MR", "CR") and (slope, intercept) == (1.0, 0.0):
        return Dataset()  # the IODs do not ask for it
    rescale = item(RescaleIntercept=f"{intercept:.10g}", RescaleSlope=f"{slope:.10g}")
    if modality != "PT":
        rescale.RescaleType = "HU" if modality == "CT" else "US"
    return rescale


def _padding(stored: np.ndarray, padding: int | tuple[int, int]) -> Dataset:
    """Fill the outside of a disc with padding values; the range is walked through row by row."""
    value, limit = padding if isinstance(padding, tuple) else (padding, None)
    rows, columns = stored.shape
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    outside = np.hypot(y, x) > 1
    low, high = sorted((value, value if limit is None else limit))
    stored[outside] = (low + np.arange(rows)[:, None] % (high - low + 1) + 0 * x)[outside]
    inside = ~outside & (stored >= low) & (stored <= high)
    stored[inside] = high + 1 if high < np.iinfo(stored.dtype).max else low - 1
    attributes = item(PixelPaddingValue=value)
    if limit is not None:
        attributes.PixelPaddingRangeLimit = limit
    for element in attributes:
        element.VR = "SS" if stored.dtype.kind == "i" else "US"
    return attributes


def _pixel_description(
    stored: np.ndarray, modality: str, signed: bool, bits_stored: int, photometric: str
) -> Dataset:
    rows, columns = stored.shape
    description = item(
        SamplesPerPixel=1,
        PhotometricInterpretation=photometric,
        Rows=rows,
        Columns=columns,
        BitsAllocated=8 if bits_stored == 8 and modality in ("CR", "DX") else 16,
        BitsStored=bits_stored,
        HighBit=bits_stored - 1,
        PixelRepresentation=int(signed),
    )
    if modality == "DX" and photometric == "MONOCHROME1":
        description.PresentationLUTShape = "INVERSE"
    return description


def _window(stored: np.ndarray, slope: float, intercept: float) -> Dataset:
    low, high = (float(v) * slope + intercept for v in np.percentile(stored, (2, 99.5)))
    return item(WindowCenter=f"{(low + high) / 2:.8g}", WindowWidth=f"{max(high - low, 1):.8g}")
