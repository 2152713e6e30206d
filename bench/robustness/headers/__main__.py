"""Hostile headers through the whole pipeline, each beside a good series that has to be derived.

    python -m bench.robustness.headers [--count 5000] [--seed 0] [--keep FOLDER]

Mode `identity` with map and report objects, in one process. A mutant is derived, refused or skipped
with a reason code. A fault is a mutant that ends as `internal-fault`, is not mentioned, raises,
takes too long or costs the good series; it is printed, kept in FOLDER, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from bench.robustness.fuzz import DERIVED, FAULTY, Outcome, peak_kilobytes, table
from bench.robustness.headers.kinds import KINDS, header_mutant
from bench.robustness.headers.tree import HeaderTree
from stillscan.app.bundles.choice import load_methods
from stillscan.app.pipeline.pipeline import run_with
from stillscan.app.pipeline.survey import Job
from stillscan.app.settings import Settings, load_settings
from stillscan.operators.internal_fault import kind_and_place
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.writing.companions.companions import ObjectOptions

SECONDS = 10.0  # within which both series are done
GOOD = UID("1.2.3.4")


def base_files(folder: Path) -> list[Path]:
    """Write one MR and one CT image and a multi-frame MR; all are small and derived."""
    files = [folder / "mr.dcm", folder / "ct.dcm", folder / "multi_frame.dcm"]
    for file, name in zip(files, ("MR_small.dcm", "CT_small.dcm"), strict=False):
        pydicom.dcmread(str(get_testdata_file(name))).save_as(file)
    slices = []
    for number in range(1, 4):
        image = pydicom.dcmread(files[0])
        image.SOPInstanceUID, image.InstanceNumber = UID(f"{GOOD}.8.{number}"), number
        image.ImagePositionPatient = [0, 0, 5 * number]
        image.FrameOfReferenceUID = f"{GOOD}.5"
        slices.append(image)
    convert = highdicom.legacy.LegacyConvertedEnhancedMRImage
    convert(slices, f"{GOOD}.6", 6, f"{GOOD}.7", 1).save_as(files[2])
    return files


def tried(bases: Sequence[Path], count: int, seed: int, kept: Path) -> Iterator[Outcome]:
    """Yield what became of each mutant, taking kinds and base files in turn.

    Args:
        bases: uncompressed files; the first also becomes the good series.
        count: number of mutants.
        seed: of the values that a kind draws.
        kept: folder that gets the mutants that are faults.
    """
    settings, trees = load_settings(), {each: HeaderTree.of(each) for each in bases}
    settings = replace(settings, denoise=replace(settings.denoise, mode="identity"))
    good = pydicom.dcmread(bases[0])
    good.StudyInstanceUID, good.SeriesInstanceUID, good.SOPInstanceUID = GOOD, GOOD, GOOD
    good.file_meta.MediaStorageSOPInstanceUID = GOOD
    with Decoder() as decoder:
        for number in range(count):
            kind = list(KINDS)[number % len(KINDS)]
            base = bases[(number + number // len(KINDS)) % len(bases)]
            # a report of measurements takes as long as all the rest
            objects = ObjectOptions(noise_map=True, measurements=number % 4 == 0)
            output = replace(settings.output, report=True, objects=objects)
            content = header_mutant(trees[base], kind, np.random.default_rng([seed, number]))
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "source")
                source.mkdir()
                good.save_as(source / "good.dcm")
                (source / "hostile.dcm").write_bytes(content)
                began = time.monotonic()
                reason, place = _outcome(source, decoder, replace(settings, output=output))
                seconds = time.monotonic() - began
            if seconds > SECONDS:
                reason = "too-slow"
            if reason in FAULTY:
                (kept / f"{number}.dcm").write_bytes(content)
            child = peak_kilobytes(decoder.process_id)
            yield Outcome(base.name, number, (kind,), reason, seconds, child, place)


def _outcome(source: Path, decoder: Decoder, settings: Settings) -> tuple[str, str]:
    job = Job(source, source.with_name("output"), settings)
    try:
        result = run_with(job, decoder, load_methods, overlapped=False)
    except Exception as error:  # what the run let through is what is looked for
        return "raised", kind_and_place(error)
    good = [each for each in result.outcomes if each.series_instance_uid == GOOD]
    if [each.status for each in good] != ["derived"]:
        return "good-series-lost", str([each.message for each in good])
    told = [
        *((each.reason, each.message) for each in result.outcomes if each not in good),
        *((each.reason, each.message) for each in result.skipped),
    ]
    faults = (each for each in told if each[0] in FAULTY)
    reason, message = next(faults, told[0] if told else ("not-mentioned", ""))
    return reason or DERIVED, message


def main() -> None:
    """Try mutants and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.robustness.headers", description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for mutants that are faults")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of pydicom, about texts and values that are meant to be wrong
    kept = arguments.keep or Path(tempfile.mkdtemp(prefix="stillscan-headers-"))
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for each in tried(base_files(Path(folder)), arguments.count, arguments.seed, kept):
            found.append(each)
            if each.reason in FAULTY:
                print(
                    f"{each.number} {each.source}, {each.damages[0]}: {each.reason} {each.place}",
                    flush=True,
                )
    print(table(found, lambda each: each.damages[0]))
    sys.exit(any(each.reason in FAULTY for each in found))


if __name__ == "__main__":
    main()
