"""Every row of the table of image kinds holds, in whatever place and company its words stand."""

import itertools
import re
from pathlib import Path

import pytest
import yaml

from stillscan.app.settings import DEFAULT_SETTINGS, parse_settings
from stillscan.operators.reading.image_kinds import AttributeValue, Facts, kinds_of, mentioned_in
from stillscan.operators.reading.kind_table import (
    COMPONENT,
    DESCRIPTION,
    IMAGE_TYPE,
    MAPPED_UNIT,
    QUANTITY,
    TABLE,
    UNIT,
    KindRow,
)

ROWS = [row for row in TABLE if row.reason != "image"]
SAMPLES = {"1[789]": "18", "[23]?": "20", "[PRI]": "P", "[PRI][ _-]*": "R_IR", "*": "MGML"}
# What manufacturers write before and after a word.
GLUED = ("{}", "CT_SOM5 {}", "SOM10-{}", "MRPET_{}", "{}_UNSPECIFIED", "{} 3D", "X/{}_2")


def sample(word: str) -> str:
    return SAMPLES.get(word, word.replace("*", ""))


def first(facts: Facts, own: tuple[KindRow, ...] = ()) -> str | None:
    return next((kind.reason for kind in kinds_of(facts, own)), None)


def facts_for(row: KindRow, value: str, modality: str, number: int = 0) -> Facts:
    """An image that says this at this value of ImageType, or in the row's own attribute."""
    kind = "DERIVED" if row.derived else "ORIGINAL"
    filling = [kind, "PRIMARY", "OTHER", "ND", "NORM", "NONE", "ND", "ND"]
    if row.attribute != IMAGE_TYPE:
        return Facts(modality, (kind, "PRIMARY"), (AttributeValue(row.attribute, value),))
    return Facts(modality, (*filling[: number - 1], value, "ND"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.attribute} {row.words[0]}")
def test_each_word_of_each_row_has_a_source_and_holds(row):
    assert row.source != KindRow("image", ("X",)).source
    for word, modality in itertools.product(row.words, row.modalities or ("MR", "CT", "CR")):
        facts = facts_for(row, sample(word), modality, max(row.first_value, 3))
        assert row.reason in {kind.reason for kind in kinds_of(facts)}, (word, modality)


def matrix() -> list[tuple[KindRow, Facts]]:
    """Every plain word of ImageType at four places, glued in seven ways, in two cases."""
    made = []
    for row in ROWS:
        plain = [word for word in row.words if not set("*?[") & set(word)]
        if row.attribute != IMAGE_TYPE:
            continue
        for word, glue, number in itertools.product(plain, GLUED, (3, 4, 5, 8)):
            if number >= row.first_value:
                value = glue.format(word)
                modality = row.modalities[0] if row.modalities else "CT"
                made.append((row, facts_for(row, value, modality, number)))
                made.append((row, facts_for(row, value.lower(), modality, number)))
    return made


@pytest.mark.slow
def test_no_place_no_glue_and_no_case_hides_a_map():
    combinations = matrix()
    assert len(combinations) > 300
    for row, facts in combinations:
        assert first(facts) is not None, (row.words, facts.image_type)


@pytest.mark.parametrize(
    ("modality", "unit"),
    [("MR", unit) for unit in ("Hz", "HZ", "ms", "msec", "mm2/s", "10^-6 mm^2/s", "1/s", "%")]
    + [("MR", unit) for unit in ("rad", "kPa", "ppm", "ml/100g/min", "T1 (ms)", "PCT", "um2/s")]
    + [("CT", unit) for unit in ("MGML", "mg/ml", "Z_EFF", "ED", "EDW", "PCT", "%", "OD", "z_eff")]
    + [("PT", unit) for unit in ("1CM", "MLMINML", "PCNT", "STDDEV", "UMOLML", "CM2ML", "CPS")],
)
def test_unit_says_that_a_pixel_is_a_quantity(modality, unit):
    facts = Facts(modality, ("ORIGINAL", "PRIMARY", "OTHER"), (AttributeValue(UNIT, unit),))
    assert first(facts) == "quantitative-map"


@pytest.mark.parametrize(
    ("modality", "unit"),
    [("MR", unit) for unit in ("normalized", "US", "", "1", "a.u.", "signal intensity")]
    + [("CT", unit) for unit in ("HU", "hu", "US", "HU_MOD", "[hnsf'U]", "")]
    + [("PT", unit) for unit in ("BQML", "GML", "CNTS")]
    + [("CR", "OD"), ("CR", "OD REL"), ("DX", "US")],
)
def test_units_of_ordinary_images_say_nothing(modality, unit):
    facts = Facts(modality, ("ORIGINAL", "PRIMARY", "OTHER"), (AttributeValue(UNIT, unit),))
    assert first(facts) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (AttributeValue(MAPPED_UNIT, "Hz"), "quantitative-map"),
        (AttributeValue(MAPPED_UNIT, "um2/s"), "quantitative-map"),
        (AttributeValue(MAPPED_UNIT, "1"), None),
        (AttributeValue(MAPPED_UNIT, "no units"), None),
        (AttributeValue(QUANTITY, "113041"), "quantitative-map"),  # ADC
        (AttributeValue(QUANTITY, "110852"), None),  # MR signal intensity
        (AttributeValue(COMPONENT, "MAGNITUDE"), None),
        (AttributeValue(DESCRIPTION, "WIP Survey_32ch"), "localizer"),
        (AttributeValue(DESCRIPTION, "t1 mprage"), None),
    ],
)
def test_codes_and_descriptions(given, reason):
    assert first(Facts("MR", ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), (given,))) == reason


# ImageType of real images that are to be denoised: shared data of this project, the test files of
# pydicom, neurolabusc/dcm_qa_* and public code that lists what its archive holds.
ORDINARY = r"""
CR DERIVED\PRIMARY
CR ORIGINAL\PRIMARY\AXIAL
DX ORIGINAL\PRIMARY\
CT DERIVED\PRIMARY\AXIAL
CT DERIVED \PRIMARY\AXIAL
CT DERIVED\PRIMARY\TOMO
CT DERIVED\CT_SOM5 SPI\PRIMARY\AXIAL
CT DERIVED\PRIMARY\AXIAL\CT_SOM5 SPO
CT DERIVED\PRIMARY\AXIAL\JP2K LOSSY 6:1
CT DERIVED\SECONDARY\AXIAL\LOSSY_COMPRESSED
CT DERIVED\SECONDARY\AXIAL\CT_SOM7 VPCT\AVG
CT ORIGINAL\PRIMARY\AXIAL
CT ORIGINAL\PRIMARY\AXIAL\ADD
CT ORIGINAL\PRIMARY\AXIAL\NORMAL
CT ORIGINAL\PRIMARY\AXIAL\HELIX
CT ORIGINAL\PRIMARY\AXIAL\CT_SOM5 MON
CT ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SEQ
CT ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI
CT ORIGINAL\PRIMARY\AXIAL\CT_SOM7 SPI DUAL\STD\SNRG\DET_AB
CT ORIGINAL\PRIMARY\AXIAL\CT_SOM10 DET3D\T1\COUNT_2SRC
CT ORIGINAL\PRIMARY\VOLUME\NONE
MR DERIVED\PRIMARY\ASL\SUBTRACTION
MR DERIVED\PRIMARY\DIFFUSION\TRACEW
MR DERIVED\PRIMARY\DIFFUSION\TENSOR_B0
MR DERIVED\PRIMARY\DIFFUSION\CALC_BVALUE\TRACEW\DIS2D\DFC
MR DERIVED\PRIMARY\M\NORM\IN_PHASE\DIS3D\DIS2D
MR DERIVED\PRIMARY\M\NORM\OPP_PHASE\DIS3D\DIS2D
MR DERIVED\PRIMARY\W\W\DERIVED
MR DERIVED\PRIMARY\F\F\DERIVED
MR DERIVED\PRIMARY\IP\IP\DERIVED
MR DERIVED\PRIMARY\OP\OP\DERIVED
MR DERIVED\SECONDARY\OTHER
MR ORIGINAL\PRIMARY\ASL\NONE
MR ORIGINAL\PRIMARY\ASL\NONE\MAGNITUDE
MR ORIGINAL\PRIMARY\ASL\NONE\ND\NORM\MOSAIC
MR ORIGINAL\PRIMARY\DIFFUSION\NONE\MB\ND
MR ORIGINAL\PRIMARY\EPI\NONE
MR ORIGINAL\PRIMARY\FMRI\NONE
MR ORIGINAL\PRIMARY\GDC
MR ORIGINAL\PRIMARY\M\MB\ND\MOSAIC
MR ORIGINAL\PRIMARY\M\ND
MR ORIGINAL\PRIMARY\M\ND\ECHO_00\MOSAIC
MR ORIGINAL\PRIMARY\M\ND\NORM\FM\FIL
MR ORIGINAL\PRIMARY\M\ND\NORM\MOCO\MOSAIC
MR ORIGINAL\PRIMARY\M\NONE
MR ORIGINAL\PRIMARY\M\NORM\DIS2D
MR ORIGINAL\PRIMARY\M\UCA\IF
MR ORIGINAL\PRIMARY\M\VFRAME
MR ORIGINAL\PRIMARY\M_B1\M\B1
MR ORIGINAL\PRIMARY\M_FFE\M\FFE
MR ORIGINAL\PRIMARY\M_IR\M\IR
MR ORIGINAL\PRIMARY\M_PCA\M\PCA
MR ORIGINAL\PRIMARY\M_SE\M\SE
MR ORIGINAL\PRIMARY\OTHER
MR ORIGINAL\PRIMARY\PERFUSION\NONE\ND
MR ORIGINAL\PRIMARY\T1\MIXED
MR ORIGINAL\PRIMARY\T1\NONE
MR ORIGINAL\PRIMARY\TEMPERATURE\NONE
PT DERIVED\SECONDARY
PT ORIGINAL\PRIMARY
"""


@pytest.mark.parametrize("line", ORDINARY.strip().splitlines())
def test_real_images_stay_images(line):
    modality, _, image_type = line.partition(" ")
    values = tuple(value.strip() for value in image_type.split("\\"))
    assert kinds_of(Facts(modality, values)) == ()


def test_rows_of_a_site_come_first_and_can_allow():
    facts = Facts("MR", ("DERIVED", "PRIMARY", "DIFFUSION", "ADC"))
    assert first(facts, (KindRow("image", ("ADC",)),)) is None
    assert first(facts, (KindRow("reformatted", ("ADC",)),)) == "reformatted"
    assert first(Facts("MR", ("ORIGINAL", "PRIMARY", "WIP77"))) is None
    own = KindRow("quantitative-map", ("WIP*",), modalities=("MR",))
    assert first(Facts("MR", ("ORIGINAL", "PRIMARY", "WIP77")), (own,)) == "quantitative-map"
    assert first(Facts("CT", ("ORIGINAL", "PRIMARY", "WIP77")), (own,)) is None
    with pytest.raises(ValueError, match="words"):
        KindRow("localizer", ())


@pytest.mark.parametrize(
    ("description", "word"),
    [("ep2d_diff_ADC", "ADC"), ("DTI FA", "FA"), ("B0map", "MAP"), ("t1 fast", ""), ("", "")],
)
def test_description_is_searched_for_names_of_maps(description, word):
    assert mentioned_in(description) == word


def documented() -> list[str]:
    """The table as docs/image-kinds.md shows it."""

    def row(each: KindRow) -> str:
        words = ", ".join(f"`{word}`" for word in each.words)
        place = [f"from value {each.first_value}"] * (each.first_value > 1)
        place += ["derived"] * each.derived
        modalities = ", ".join(each.modalities) or "all"
        attribute = f"`{each.attribute}`"
        cells = (f"`{each.reason}`", attribute, words, modalities, ", ".join(place), each.source)
        return f"| {' | '.join(cells)} |"

    return [row(each) for each in TABLE]


def test_document_shows_the_table():
    page = (Path(__file__).parents[2] / "docs" / "image-kinds.md").read_text(encoding="utf-8")
    rows = page.split("## The table")[1].split("## ")[0].strip().splitlines()
    assert [row for row in rows if row.startswith("| `")] == documented()


def test_rows_of_the_document_are_settings():
    page = (Path(__file__).parents[2] / "docs" / "image-kinds.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    shipped = yaml.safe_load(DEFAULT_SETTINGS.read_text(encoding="utf-8"))
    shipped["selection"] |= yaml.safe_load(example)["selection"]
    one, two = parse_settings(shipped).selection.image_kinds
    assert one.words == ("WIP77 MAP", "*PERFWIP*")
    hertz = Facts("MR", ("ORIGINAL", "PRIMARY", "M"), (AttributeValue(UNIT, "Hz"),))
    assert first(hertz) == "quantitative-map"
    assert first(hertz, (one, two)) is None
