"""Numbers, text and character sets that no scanner writes."""

from __future__ import annotations

import numpy as np

from bench.robustness.headers.tree import HeaderTree, Kind, hostile, one

NUMBERS = (
    *(b"nan", b"inf", b"-inf", b"1e308", b"-1e308", b"1e-320", b"0", b"-0", b"-1", b"1e30"),
    *(b"1e-30", b"1_0", b"0x10", b"", b" ", b"1,5", b"\xb2", b"9" * 400, b"1e999999999"),
)
CODECS = (
    b"undefined zlib_codec bz2_codec hex_codec base64_codec idna punycode utf_7 utf-8-sig utf_16 "
    b"utf_32 rot13 raw_unicode_escape unicode_escape mbcs oem cp037 hz iso2022_kr palmos uu_codec"
).split()
TERMS = (
    *(b"ISO_IR 100", b"ISO_IR 192", b"GB18030", b"GBK", b"ISO 2022 IR 87", b"ISO 2022 IR 149"),
    *(b"ISO 2022 IR 58", b"ISO 2022 IR 159", b"ISO_IR 13", b"ISO_IR 999", b"iso_ir 192", b""),
)
ESCAPES = (b"\x1b$B", b"\x1b$)C", b"\x1b(B", b"\x1b$)A", b"\x1b(J", b"\x1b", b"\x1b\x1b$", b"\x0e")
TEXTS = (
    b"<script>alert(1)</script>",
    b"%s%n{0}{__class__}${jndi:ldap://x}",
    b"a\\b\\c",
    b"\x00\x01\x07\x08\x1b[31m",
    b"line\r\nfeed: injected",
    b"\xe2\x80\xaeturned",
    b"\xff\xfe\xfd\xfc" * 40,
    b"../../../../etc/passwd",
    b"' OR 1=1; DROP TABLE series; --",
    b"=cmd|' /C calc'!A0",
)
TEXT_KEYWORDS = (
    *("SeriesDescription", "DerivationDescription", "PatientName", "PatientID", "Manufacturer"),
    *("StudyDescription", "RescaleType", "BodyPartExamined", "StationName", "ProtocolName"),
    *("AccessionNumber", "StudyID", "ImageComments", "LossyImageCompression"),
    *("BurnedInAnnotation", "PatientBirthDate", "InstitutionName"),
)
CODES = ("ImageType", "Modality", "PhotometricInterpretation", "Laterality", "PatientPosition")
DATES = ("SeriesDate", "SeriesTime", "ContentDate", "ContentTime", "StudyDate", "AcquisitionTime")
UIDS = (
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "SOPClassUID"),
    *("FrameOfReferenceUID",),
)
INTEGERS = (
    *("SeriesNumber", "InstanceNumber", "AcquisitionNumber", "EchoNumbers"),
    *("ImagesInAcquisition",),
)


def numbers(rng: np.random.Generator, count: int) -> bytes:
    """Numbers, at least one of which is none, or extreme."""
    values = [f"{rng.normal():.4f}".encode() for _ in range(count)]
    for at in {int(rng.integers(count)) for _ in range(int(rng.integers(1, count + 1)))}:
        values[at] = one(rng, NUMBERS)
    return b"\\".join(values)


def _put_number(keyword: str, *values: bytes) -> Kind:
    def change(tree: HeaderTree, rng: np.random.Generator) -> None:
        tree.put(keyword, one(rng, values or NUMBERS))

    return change


def _numbers_in(keyword: str, count: int) -> Kind:
    def change(tree: HeaderTree, rng: np.random.Generator) -> None:
        tree.put(keyword, numbers(rng, count))

    return change


def _count_of(keyword: str, count: int) -> Kind:
    """Too few, too many, or very many numbers."""

    def change(tree: HeaderTree, rng: np.random.Generator) -> None:
        many = one(rng, [0, 1, count - 1, count + 1, 2 * count, 3000, 100_000])
        tree.put(keyword, b"\\".join([b"0.5"] * many))

    return change


def _turned(rows: tuple[bytes, ...]) -> Kind:
    def change(tree: HeaderTree, rng: np.random.Generator) -> None:
        tree.put("ImageOrientationPatient", one(rng, rows))

    return change


@hostile("text")
def _text(tree: HeaderTree, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        tree.put(one(rng, TEXT_KEYWORDS), one(rng, TEXTS))


@hostile("long text")
def _long_text(tree: HeaderTree, rng: np.random.Generator) -> None:
    size = one(rng, [65, 1025, 65_534, 65_536, 2**21])
    tree.put(one(rng, (*TEXT_KEYWORDS, *CODES)), one(rng, (b"x", b"\xff", b"\\", b"\0")) * size)


@hostile("random text")
def _random_text(tree: HeaderTree, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 6))):
        tree.put(one(rng, (*TEXT_KEYWORDS, *CODES, *DATES)), rng.bytes(int(rng.integers(1, 200))))


@hostile("codec as set")
def _codec(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put("SpecificCharacterSet", one(rng, CODECS))
    tree.put("SeriesDescription", one(rng, (*TEXTS, b"\\x41 \\N{SNOWMAN}", b"xn--" * 10)))


@hostile("sets")
def _terms(tree: HeaderTree, rng: np.random.Generator) -> None:
    chosen = [one(rng, (*TERMS, *CODECS)) for _ in range(int(rng.integers(2, 6)))]
    tree.put("SpecificCharacterSet", b"\\".join(chosen))
    tree.put("SeriesDescription", rng.bytes(40))


@hostile("many sets")
def _many_terms(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put("SpecificCharacterSet", b"\\".join([one(rng, TERMS)] * 20_000))


@hostile("escapes")
def _escapes(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put("SpecificCharacterSet", b"\\".join([b"", b"ISO 2022 IR 87", b"ISO 2022 IR 149"]))
    pieces = [one(rng, ESCAPES) + rng.bytes(int(rng.integers(0, 6))) for _ in range(200)]
    tree.put("SeriesDescription", b"".join(pieces))
    tree.put("DerivationDescription", b"".join(pieces) * 100)


@hostile("broken UTF-8")
def _broken_utf8(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put("SpecificCharacterSet", b"ISO_IR 192")
    tree.put("SeriesDescription", bytes([0xC3] * int(rng.integers(1, 70))) + rng.bytes(9))


@hostile("huge text in a set")
def _huge_text_in_set(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put("SpecificCharacterSet", b"\\".join([b"", one(rng, TERMS[4:8])]))
    tree.put("SeriesDescription", one(rng, ESCAPES) * 2**17)


@hostile("UIDs")
def _uid(tree: HeaderTree, rng: np.random.Generator) -> None:
    values = (
        b"...",
        b"1" * 64,
        b"1" * 65,
        b"1.02.3",
        b"../1",
        b"1.2\\3.4",
        b"1.2\x003",
        b"-1.2",
        b".",
        b"0",
        b"1.2.840." + b"9" * 300,
        b"\xb9.2",
        b" 1.2",
        b"1.2.3\n",
    )
    tree.put(one(rng, UIDS), one(rng, values))


@hostile("one UID for all")
def _one_uid(tree: HeaderTree, rng: np.random.Generator) -> None:
    for keyword in UIDS[:3]:
        tree.put(keyword, b"1.2.3")


@hostile("whole numbers")
def _integer(tree: HeaderTree, rng: np.random.Generator) -> None:
    values = (
        b"99999999999999999999",
        b"-9999999999999999999",
        b"2147483648",
        b"-2147483649",
        b"9" * 5000,
        b"1.5",
        b"1e3",
        b"1_0",
        b"+",
        b"\xb2",
        b"0x7f",
        b"2147483647",
        b"nan",
    )
    for _ in range(int(rng.integers(1, 4))):
        tree.put(one(rng, INTEGERS), one(rng, values))


@hostile("many codes")
def _many_codes(tree: HeaderTree, rng: np.random.Generator) -> None:
    count = one(rng, [3, 5, 200, 5000])
    tree.put(
        "ImageType",
        b"\\".join(one(rng, (b"ORIGINAL", b"", b"\xe9", b"A" * 40)) for _ in range(count)),
    )


@hostile("codes")
def _code(tree: HeaderTree, rng: np.random.Generator) -> None:
    tree.put(one(rng, CODES), one(rng, (*TEXTS, b"mr", b"MR ", b"MR\\CT", b"\xe9", b"")))


@hostile("dates")
def _date(tree: HeaderTree, rng: np.random.Generator) -> None:
    for keyword in DATES:
        tree.put(keyword, one(rng, (*TEXTS, b"99999999", b"00000000", b"-1", b"20250230")))


hostile("position no number")(_numbers_in("ImagePositionPatient", 3))
hostile("position count")(_count_of("ImagePositionPatient", 3))
hostile("orientation no number")(_numbers_in("ImageOrientationPatient", 6))
hostile("orientation count")(_count_of("ImageOrientationPatient", 6))
hostile("orientation parallel")(_turned((b"1\\0\\0\\1\\0\\0", b"0\\0\\1\\0\\0\\-1")))
hostile("orientation long")(_turned((b"9\\0\\0\\0\\9\\0", b"1e150\\0\\0\\0\\1e150\\0")))
hostile("orientation short")(_turned((b"1e-9\\0\\0\\0\\1\\0", b"0\\0\\0\\0\\0\\0")))
hostile("spacing no number")(_numbers_in("PixelSpacing", 2))
hostile("spacing count")(_count_of("PixelSpacing", 2))
hostile("imager spacing")(_numbers_in("ImagerPixelSpacing", 2))
hostile("thickness")(_put_number("SliceThickness"))
hostile("slice location")(_put_number("SliceLocation"))
hostile("slope")(_put_number("RescaleSlope"))
hostile("intercept")(_put_number("RescaleIntercept"))
hostile("window")(_put_number("WindowWidth"))
hostile("window centre")(_put_number("WindowCenter"))
hostile("window count")(_count_of("WindowWidth", 1))
hostile("echo time")(_put_number("EchoTime"))
hostile("spacing absurd")(
    _put_number("PixelSpacing", b"1000000\\1", b"1\\1e9", b"1e-9\\1e-9", b"99\\.002")
)
