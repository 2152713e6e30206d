"""`make demo`: denoises a generated head whose truth is known, and real images.

Everything goes through the command that a person would type; what it wrote is then read back and
compared with the truth.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.data import get_testdata_file
from rich.console import Console
from rich.table import Table

from bench.derived import derived_folders, read_result, read_stored
from bench.phantom.acquisition import Protocol
from bench.phantom.series import GeneratedSeries, generate_series
from bench.picture import save_comparison
from bench.quality import Quality, Series, quality
from stillscan.app.evaluation.peers import nlm
from stillscan.operators.errors import ExitCode

STILLSCAN = Path(sys.executable).with_name("stillscan")
REAL_HEAD = Path("dev/dicom/mr_siemens_prisma_t1_sag")
SHOWN_SLICE = 10


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    quality: Quality
    seconds: float | None


def main() -> None:
    """Run the demo and return the exit code of the first run that failed."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="output folder, emptied first"
    )
    parser.add_argument("--mode", default="student", help="mode of `stillscan denoise`")
    parser.add_argument("--picture", type=Path, help="file for the before-and-after picture")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    console = Console()
    picture = arguments.picture or arguments.out / "before-after.png"
    show_generated_head(console, arguments.out, arguments.mode, picture)
    show_real_images(console, arguments.out, arguments.mode)
    show_real_head(console, arguments.out, arguments.mode)
    console.rule("Where to look")
    console.print(f"picture     {picture}")
    for page in sorted(arguments.out.glob("*/report/index.html")):
        console.print(f"page        {page}", soft_wrap=True)
    for folder in sorted(arguments.out.glob("*/")):
        if folder.name != "input":
            console.print(f"DICOM       {folder}{os.sep}<SeriesInstanceUID>{os.sep}*.dcm")


def show_generated_head(console: Console, out: Path, mode: str, picture: Path) -> None:
    """Denoise the generated head; print its distance from the truth beside NLM; save a picture."""
    console.rule("A generated T1-weighted head, 24 slices of 256x256, truth known")
    began = time.perf_counter()
    generated = generate_series(out / "input" / "generated", Protocol())
    console.print(
        f"generated in {time.perf_counter() - began:.1f} s; noise {generated.noise:.0f} of "
        f"{Protocol().white_signal:.0f} (white matter), Rician, correlated"
    )
    seconds = denoise(generated.folder, out / "generated", mode)
    noisy = read_stored(generated.folder)
    (folder,) = derived_folders(out / "generated")
    after = read_stored(folder)
    began = time.process_time()
    by_nlm = np.stack([nlm(image) for image in noisy])
    nlm_seconds = time.process_time() - began
    rows = [
        _row("before", noisy, generated, None),
        _row("Stillscan", after, generated, seconds),
        _row("NLM (scikit-image)", by_nlm, generated, nlm_seconds),
    ]
    console.print(_table(rows))
    console.print(
        "PSNR all counts the air too, where the Rician bias stays. Lesions: how much of their true "
        "contrast is kept. Seconds of Stillscan: wall time of the command, start-up, DICOM and "
        "report included; of NLM: processor time of the filter alone, told its own estimate of "
        "sigma. A generated head has less fine structure than a real one, which is kind to every "
        "denoiser."
    )
    save_comparison(
        picture,
        [
            (f"{name}   {row.quality.psnr_head:.1f} dB" if row else name, images[SHOWN_SLICE])
            for name, images, row in [
                ("noisy series", noisy, rows[0]),
                ("derived by Stillscan", after, rows[1]),
                ("noise-free truth", generated.truth, None),
            ]
        ],
    )


def show_real_images(console: Console, out: Path, mode: str) -> None:
    """Denoise the MR and the CT image that come with pydicom."""
    console.rule("Real images: MR_small and CT_small of pydicom")
    folder = out / "input" / "pydicom"
    folder.mkdir(parents=True)
    for name in ("MR_small.dcm", "CT_small.dcm"):
        found = get_testdata_file(name, download=False)
        assert isinstance(found, str), f"{name} comes with pydicom"
        shutil.copy(found, folder)
    denoise(folder, out / "pydicom", mode, refused=1)
    console.print(
        "MR_small (64 x 64) has no flat place and no fine detail that is not structure: its noise "
        "cannot be measured, so nothing is derived from it."
    )


def show_real_head(console: Console, out: Path, mode: str) -> None:
    """Denoise a real head series, if the development data is on this machine."""
    data = os.environ.get("STILLSCAN_DATA", "")
    console.rule("A real head series")
    if not data:
        console.print("STILLSCAN_DATA is not set: skipped.")
        return
    denoise(Path(data) / REAL_HEAD, out / "real-head", mode)


def denoise(source: Path, output: Path, mode: str, refused: int = 0) -> float:
    """Run `stillscan denoise`, which must refuse `refused` series; return its seconds."""
    print(f"$ stillscan denoise {source} {output}", flush=True)
    began = time.perf_counter()
    done = subprocess.run([STILLSCAN, "denoise", source, output, "--mode", mode], check=False)
    seconds = time.perf_counter() - began
    if done.returncode != (ExitCode.PARTLY_DERIVED if refused else ExitCode.DERIVED):
        print(f"stillscan ended with exit code {done.returncode}", file=sys.stderr)
        raise SystemExit(done.returncode or 1)
    found = [each for each in read_result(output)["series"] if each["status"] == "refused"]
    assert len(found) == refused, f"refused: {found}"
    return seconds


def _row(name: str, images: Series, generated: GeneratedSeries, seconds: float | None) -> Row:
    return Row(name, quality(images, generated.truth, generated.lesions), seconds)


def _table(rows: list[Row]) -> Table:
    table = Table(title="against the truth")
    for column in ("", "PSNR head", "PSNR all", "SSIM", "lesions", "seconds"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.quality.psnr_head:.2f} dB",
            f"{row.quality.psnr:.2f} dB",
            f"{row.quality.ssim:.3f}",
            f"{row.quality.lesion_contrast:.0%}",
            "" if row.seconds is None else f"{row.seconds:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
