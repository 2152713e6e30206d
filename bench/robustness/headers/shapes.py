"""Elements of another VR or length, sequences, private blocks and pixels that do not fit."""

from __future__ import annotations

import struct

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR

from bench.robustness.headers.tree import HeaderTree, Kind, element, hostile, one, tag_of
from bench.robustness.headers.values import CODECS, DATES, TEXT_KEYWORDS, TEXTS, UIDS
from stillscan.operators.dicom.elements import LONG_VRS, SHORT_VRS, Element

SEQUENCES = (
    *("ReferencedSeriesSequence", "CodingSchemeIdentificationSequence", "DerivationCodeSequence"),
    *("ContributingEquipmentSequence", "SourceImageSequence", "ReferencedImageSequence"),
    *("SourceImageEvidenceSequence", "ReferencedStudySequence", "RequestAttributesSequence"),
    *("IconImageSequence", "VOILUTSequence", "RealWorldValueMappingSequence"),
    *("ProcedureCodeSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence"),
    *("SharedFunctionalGroupsSequence", "OtherPatientIDsSequence", "DimensionOrganizationSequence"),
)
NEEDED = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("RescaleSlope", "RescaleIntercept", "NumberOfFrames", "SpecificCharacterSet", "SeriesNumber"),
    *("PixelPaddingValue", "WindowCenter", "WindowWidth", "ImageType", "Modality", "SOPClassUID"),
    *("SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SmallestImagePixelValue"),
)
VRS = [each.decode() for each in sorted({*SHORT_VRS, *LONG_VRS})]


@hostile("VR of a needed attribute")
def _vr_of_needed(tree: HeaderTree, rng: np.random.Generator) -> None:
    keyword = one(rng, NEEDED)
    before = tree.get(keyword)
    value = before.value if before is not None else rng.bytes(4)
    tree.put(keyword, value, one(rng, VRS))


@hostile("VR of any attribute")
def _vr_of_any(tree: HeaderTree, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(tree.elements)))
        before = tree.elements[at]
        tree.elements[at] = before._replace(vr=one(rng, VRS).encode(), items=None)


@hostile("length of a binary value")
def _length_of_binary(tree: HeaderTree, rng: np.random.Generator) -> None:
    """A binary value that is no multiple of its word."""
    keyword = one(rng, ("Rows", "Columns", "BitsStored", "PixelPaddingValue", "SamplesPerPixel"))
    tree.put(keyword, rng.bytes(one(rng, [0, 1, 3, 5, 7, 60_000])))


@hostile("scalar as sequence")
def _scalar_as_sequence(tree: HeaderTree, rng: np.random.Generator) -> None:
    keyword = one(rng, (*NEEDED, *TEXT_KEYWORDS, *UIDS, *DATES))
    if keyword != "SpecificCharacterSet":
        tree.put_items(keyword, [[element("PatientName", b"A^B")]] * int(rng.integers(3)), "SQ")


@hostile("sequence as another VR")
def _sequence_as(tree: HeaderTree, rng: np.random.Generator) -> None:
    value = one(rng, (rng.bytes(64), b"", b"text", b"\xfe\xff\x00\xe0\xff\xff\xff\x7f"))
    vr = one(rng, ("UN", "LO", "OB", "US", "FD", "AT", "UT", "OW"))
    tree.put(one(rng, SEQUENCES), value, vr)


@hostile("unknown that may be a sequence")
def _unknown_sequence(tree: HeaderTree, rng: np.random.Generator) -> None:
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", one(rng, [0, 4, 8, 12, 2**31]))
    tree.put(one(rng, SEQUENCES), item + rng.bytes(int(rng.integers(0, 24))), "UN")


@hostile("empty sequence")
def _empty_sequence(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put_items(one(rng, SEQUENCES), [])


@hostile("empty items")
def _empty_items(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put_items(one(rng, SEQUENCES), [[]] * int(rng.integers(1, 8)))


@hostile("empty items everywhere")
def _all_sequences_empty(tree: HeaderTree, rng: np.random.Generator) -> None:
    for keyword in SEQUENCES[:13]:
        tree.put_items(keyword, [[]] * int(rng.integers(1, 3)))


@hostile("very many items")
def _very_many_items(tree: HeaderTree, rng: np.random.Generator) -> None:
    count = one(rng, [10_000, 100_000, 1_100_000])
    tree.put(one(rng, SEQUENCES[:13]), b"\xfe\xff\x00\xe0\0\0\0\0" * count, "SQ")


@hostile("very many elements")
def _many_elements(tree: HeaderTree, rng: np.random.Generator) -> None:
    group = one(rng, [0x0009, 0x0019, 0x0040])
    start = 0x1000 if group % 2 else 0xA400
    for number in range(one(rng, [1000, 20_000])):
        tree.elements.append(Element(group << 16 | start + number, b"LO", b"x" * (number % 5)))


def _nested(tag: int) -> Kind:
    def change(tree: HeaderTree, rng: np.random.Generator) -> None:
        inner = [Element(0x00290010, b"LO", b"SOMEBODY"), Element(0x00291001, b"LO", rng.bytes(9))]
        for _ in range(one(rng, [1, 3, 9, 25, 31, 33, 60])):
            inner = [Element(tag, b"SQ", b"", [inner] * int(rng.integers(1, 2)))]
        tree.set(inner[0])

    return change


@hostile("private creators")
def _creators(tree: HeaderTree, rng: np.random.Generator) -> None:
    """Private blocks: none, twice, all, or of a creator on the allow-list with another VR."""
    names = (b"SIEMENS MR HEADER", b"GEMS_PARM_01", b"SOMEBODY", b"", b"\xff" * 64, rng.bytes(64))
    for block in range(0x10, 0x10 + int(rng.integers(1, 240))):
        tree.elements.append(Element(0x0019 << 16 | block, b"LO", one(rng, names)))
        vr = one(rng, VRS).encode()
        if vr != b"SQ":
            tree.elements.append(Element(0x0019 << 16 | block << 8 | 0x0C, vr, rng.bytes(6)))


@hostile("private without a block")
def _private_without_block(tree: HeaderTree, rng: np.random.Generator) -> None:
    for _ in range(20):
        tag = int(rng.integers(4, 0x7FE0)) << 16 | 1 << 16 | int(rng.integers(0x10000))
        tree.elements.append(Element(tag, b"UN", rng.bytes(int(rng.integers(0, 40)))))


@hostile("refers to itself")
def _refers_to_itself(tree: HeaderTree, rng: np.random.Generator) -> None:
    series, instance = tree.get("SeriesInstanceUID"), tree.get("SOPInstanceUID")
    assert series is not None
    assert instance is not None
    inside = [[element("ReferencedSOPInstanceUID", instance.value)], []]
    wrong = element("ReferencedInstanceSequence", rng.bytes(12), "UN")
    right = element("ReferencedInstanceSequence", items=inside)
    for keyword in ("ReferencedSeriesSequence", "SourceImageEvidenceSequence"):
        tree.put_items(keyword, [[series, wrong], [series, right], []])


@hostile("other equipment")
def _other_equipment(tree: HeaderTree, rng: np.random.Generator) -> None:
    who = [
        element("Manufacturer", one(rng, (*TEXTS, b"Stillscan"))),
        element("PurposeOfReferenceCodeSequence", items=[[]]),
    ]
    tree.put_items("ContributingEquipmentSequence", [who, []])


@hostile("padding")
def _padding(tree: HeaderTree, rng: np.random.Generator) -> None:
    low, high = (int(rng.integers(0x10000)) for _ in range(2))
    tree.put("PixelPaddingValue", struct.pack("<H", low), one(rng, ("US", "SS", "OW", "UL")))
    tree.put("PixelPaddingRangeLimit", struct.pack("<H", high), one(rng, ("US", "SS")))


@hostile("bits")
def _bits(tree: HeaderTree, rng: np.random.Generator) -> None:
    values = (0, 1, 2, 7, 8, 9, 11, 12, 15, 16, 17, 32, 64, 255, 65535)
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        if rng.random() < 0.5:
            tree.put(keyword, struct.pack("<H", one(rng, values)))


@hostile("matrix")
def _matrix(tree: HeaderTree, rng: np.random.Generator) -> None:
    """The same pixels in another shape, or a shape without pixels."""
    rows, columns = (tree.get(each) for each in ("Rows", "Columns"))
    assert rows is not None
    assert columns is not None
    total = int.from_bytes(rows.value, "little") * int.from_bytes(columns.value, "little")
    high = one(rng, [1, 2, 16, 32, 33, 64, 0, 65535])
    tree.put("Rows", struct.pack("<H", high))
    tree.put("Columns", struct.pack("<H", min(total // max(high, 1), 65535)))


@hostile("photometric")
def _kind_of_pixels(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put("PhotometricInterpretation", one(rng, (b"monochrome2", b"RGB", b"PALETTE COLOR", b"")))
    tree.put("SamplesPerPixel", struct.pack("<H", int(rng.integers(0, 5))))


@hostile("pixels")
def _constant(tree: HeaderTree, rng: np.random.Generator) -> None:
    """Pixels that are all the same, or two values, or white noise of all bits."""
    head, pixels = tree.tail[:12], tree.tail[12:]
    choice = int(rng.integers(3))
    value = rng.bytes(2) if choice < 2 else b""
    tree.tail = head + (value * (len(pixels) // 2) if value else rng.bytes(len(pixels)))


@hostile("frames")
def _frames(tree: HeaderTree, rng: np.random.Generator) -> None:
    values = (b"0", b"-1", b"1", b"2", b"99999999999", b"1.0", b"", b"nan", b"60000", b"1\\1")
    tree.put("NumberOfFrames", one(rng, values))


@hostile("tables")
def _modality_table(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put_items("ModalityLUTSequence", [[]] * int(rng.integers(3)))
    table = [element("LUTDescriptor", rng.bytes(6), "US"), element("LUTData", rng.bytes(64), "OW")]
    tree.put_items("VOILUTSequence", [table, []])


@hostile("overlay")
def _overlay(tree: HeaderTree, rng: np.random.Generator) -> None:
    group = 0x6000 + 2 * int(rng.integers(16))
    tree.elements.append(Element(group << 16 | 0x0102, b"US", rng.bytes(2)))
    if rng.random() < 0.5:
        tree.elements.append(Element(group << 16 | 0x3000, b"OW", rng.bytes(64)))


@hostile("tags twice")
def _twice(tree: HeaderTree, rng: np.random.Generator) -> None:
    """Tags that come twice, with other values."""
    for _ in range(int(rng.integers(1, 5))):
        before = tree.elements[int(rng.integers(len(tree.elements)))]
        tree.elements.append(before._replace(value=rng.bytes(len(before.value)), items=None))


@hostile("out of order")
def _out_of_order(tree: HeaderTree, rng: np.random.Generator) -> None:
    order = rng.permutation(len(tree.elements))
    tree.elements = [tree.elements[int(at)] for at in order]
    tree.sorted = False


@hostile("group lengths")
def _lengths(tree: HeaderTree, rng: np.random.Generator) -> None:
    """Group lengths, command elements, odd groups that nobody has."""
    for group in (0x0000, 0x0008, 0x0010, 0x0028, 0x0001, 0x0003, 0xFFFF):
        tree.elements.append(Element(group << 16 | int(rng.integers(3)), b"UL", rng.bytes(4)))


@hostile("missing")
def _missing(tree: HeaderTree, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 6))):
        tree.remove(one(rng, (*NEEDED, *UIDS)))


@hostile("only what is needed")
def _only_needed(tree: HeaderTree, rng: np.random.Generator) -> None:
    kept = {tag_of(each) for each in (*NEEDED[:7], *UIDS[:4], "Modality")}
    tree.elements = [each for each in tree.elements if each.tag in kept]


@hostile("random elements")
def _random_elements(tree: HeaderTree, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 60))):
        group = one(rng, [0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0x0040, 0x0054])
        tag = group << 16 | int(rng.integers(0x10000))
        known = dictionary_VR(tag)[:2] if dictionary_has_tag(tag) else "UN"
        if known != "SQ" and tag != tag_of("SpecificCharacterSet"):
            tree.elements.append(Element(tag, known.encode(), rng.bytes(int(rng.integers(64)))))


@hostile("random values")
def _known_elements(tree: HeaderTree, rng: np.random.Generator) -> None:
    """Random bytes for attributes that are in the dictionary and in the file."""
    for at, each in enumerate(tree.elements):
        spared = each.tag in {tag_of(keyword) for keyword in (*NEEDED, *UIDS)}
        if not spared and each.items is None and rng.random() < 0.3:
            tree.elements[at] = each._replace(value=rng.bytes(len(each.value)))


@hostile("file meta information")
def _meta(tree: HeaderTree, rng: np.random.Generator) -> None:
    tags = (0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020016, 0x00020100, 0x00020102)
    tag = one(rng, tags)
    vr = one(rng, ("UI", "AE", "OB", "SQ", "UN", "SH")).encode()
    tree.meta[tag] = Element(tag, vr, one(rng, (*TEXTS, b"1.2.3", b"", b"A" * 4000)))


@hostile("codec in items")
def _item_with_codec(tree: HeaderTree, rng: np.random.Generator) -> None:
    inside = [
        element("SpecificCharacterSet", one(rng, CODECS)),
        element("CodingSchemeDesignator", rng.bytes(8)),
    ]
    for keyword in SEQUENCES[:6]:
        tree.put_items(keyword, [inside])


hostile("nested private sequences")(_nested(0x00291010))
hostile("nested public sequences")(_nested(0x00081140))
