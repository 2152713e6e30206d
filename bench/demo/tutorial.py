"""The input of docs/tutorial.md and its pictures.

python -m bench.demo.tutorial series FOLDER      a folder of DICOM: a generated head and what comes
                                            with pydicom: an MR image, a CT image, an RT plan
python -m bench.demo.tutorial pictures FOLDER    docs/pictures anew (needs Debian's chromium)
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from bench.derived import read_result, read_stored
from bench.phantom.acquisition import Protocol
from bench.phantom.series import WINDOW_CENTER, WINDOW_WIDTH, generate_series
from bench.picture import Grey, grey, save_panels
from bench.quality import Series, Slice
from stillscan.operators.errors import ExitCode

HEAD = Protocol(slices=8, first_mm=8.0)
FROM_PYDICOM = ("MR_small.dcm", "CT_small.dcm", "rtplan.dcm")
STRENGTHS = ("low", "medium", "high")
SHOWN = 3  # index of the slice shown
DETAIL = (
    slice(64, 192),
    slice(64, 168),
)  # rows and columns: ventricles, deep nuclei, the left cortex
TAKEN = 3.0  # range of the picture of the removed noise, in units of its standard deviation
SHADES = 40
PAGE = (840, 900)  # pixels of the picture of the report


def main() -> None:
    """Write the input folder or draw the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.demo.tutorial",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["series", "pictures"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "series":
        write_series(arguments.folder)
    else:
        draw_pictures(arguments.folder)


def write_series(folder: Path) -> None:
    """Write the generated head and the example images of pydicom."""
    generate_series(folder / "head", HEAD)
    examples = folder / "examples"
    examples.mkdir(exist_ok=True)
    for name in FROM_PYDICOM:
        found = get_testdata_file(name, download=False)
        assert isinstance(found, str), f"{name} comes with pydicom"
        shutil.copyfile(found, examples / name)


def draw_pictures(folder: Path) -> None:
    """Denoise the folder of the tutorial at every strength, and draw the results."""
    with TemporaryDirectory() as place:
        series = Path(place, "series")
        write_series(series)
        results = {each: denoise(series, Path(place, each), each) for each in STRENGTHS}
        head = read_stored(series / "head")[SHOWN]
        quiet = {name: derived(out, "MR", HEAD.slices)[SHOWN] for name, out in results.items()}
        draw_strengths(folder / "strengths.png", head, quiet)
        ct = series / "examples" / "CT_small.dcm"
        draw_ct(folder / "ct.png", ct, derived(results["high"], "CT", 1)[0])
        photograph(report_of(results["high"], HEAD.slices), folder / "report.png")


def denoise(series: Path, out: Path, strength: str) -> Path:
    """Run `stillscan denoise` at this strength and return the folder of the results."""
    program = Path(sys.executable).with_name("stillscan")
    done = subprocess.run([program, "denoise", series, out, "--strength", strength], check=False)
    assert done.returncode == ExitCode.PARTLY_DERIVED, "the small MR image alone is refused"
    return out


def derived(out: Path, modality: str, slices: int) -> Series:
    """Read the stored values of the derived series of this modality and length."""
    return read_stored(out / _one(out, modality, slices))


def report_of(out: Path, slices: int) -> Path:
    """Return the report page of the derived MR series of this length."""
    return out / "report" / f"{_one(out, 'MR', slices)}.html"


def _one(out: Path, modality: str, slices: int) -> str:
    (folder,) = (
        each["derived"]["folder"]
        for each in read_result(out)["series"]
        if (each["modality"], each["slices"]) == (modality, slices) and each["derived"]
    )
    return str(folder)


def draw_strengths(path: Path, before: Slice, quiet: Mapping[str, Slice]) -> None:
    """Draw the original and every strength."""
    panels = [("original", shown(before))]
    panels += [(strength, shown(pixels)) for strength, pixels in quiet.items()]
    save_panels(path, panels, 2, SHADES)


def draw_ct(path: Path, source: Path, after: Slice) -> None:
    """Draw the CT image of pydicom before and after, in a soft-tissue window."""
    before = dcmread(source).pixel_array.astype(np.float32)
    low, high = np.percentile(before, (2, 99.5))
    noise = float(np.std(after - before))
    panels = [
        ("original", grey(before, low, high)),
        ("derived", grey(after, low, high)),
        ("taken away", grey(after - before, -TAKEN * noise, TAKEN * noise)),
    ]
    save_panels(path, panels, 2, SHADES)


def shown(pixels: Slice) -> Grey:
    """Return the detail of the head in the window of its header."""
    half = WINDOW_WIDTH / 2
    return grey(pixels[DETAIL], WINDOW_CENTER - half, WINDOW_CENTER + half)


def photograph(page: Path, picture: Path) -> None:
    """Take a picture of a report page in a browser."""
    width, height = PAGE
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--virtual-time-budget=20000"]  # the page draws its slices after it has loaded
    command += [f"--window-size={width},{height}", f"--screenshot={picture.resolve()}"]
    subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True)
    Image.open(picture).convert("RGB").quantize(32).save(picture, optimize=True)


if __name__ == "__main__":
    main()
