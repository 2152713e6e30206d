"""Fuzzing: damaged files must give pixels or a reason code, never a traceback.

    python -m bench.robustness.fuzz --mutants 20000 --seed 1     (real files of STILLSCAN_DATA)
    python -m bench.robustness.fuzz --mutants 500 some.dcm other.dcm    (these files)

Prints how many mutants of each file ended how, the slowest, and the most memory. A mutant that is
not classified ends the run with a traceback and is kept.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.derived import EVERYTHING
from bench.robustness.mutants import mutant
from stillscan.operators.errors import DecoderStoppedError, StillscanError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.derive_series import SeriesWriter
from stillscan.operators.writing.provenance import Provenance

DERIVED = "derived"
FAULTY = ("internal-fault", "not-mentioned", "raised", "good-series-lost", "too-slow")  # ours
SYNTAX_FOLDER = "ct_chest_transfer_syntaxes"
REAL_FILES = (
    "mr_siemens_prisma_t1_sag/*.dcm",
    "mr_siemens_xa30_enhanced_bold4/*.dcm",
    f"{SYNTAX_FOLDER}/*1.2.840.10008.1.2.1.99.dcm",
    f"{SYNTAX_FOLDER}/*1.2.840.10008.1.2.4.80.dcm",
    f"{SYNTAX_FOLDER}/*1.2.840.10008.1.2.4.90.dcm",
    f"{SYNTAX_FOLDER}/*1.2.840.10008.1.2.4.70.dcm",
    f"{SYNTAX_FOLDER}/*1.2.840.10008.1.2.5.dcm",
    f"{SYNTAX_FOLDER}/*1.2.840.10008.1.2.2.dcm",
)
CONTROL = Provenance(
    version="0",
    bundle="none",
    model_sha256="0" * 64,
    mode="identity",
    strength=1.0,
    engine="none",
    precision="float32",
    device="cpu",
)


@dataclass(frozen=True)
class Unchanged:
    """A block that was not denoised."""

    block: VolumeBlock
    pixels: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """The outcome of one mutant: `derived`, or a stable reason code, and where a fault is."""

    source: str
    number: int
    damages: tuple[str, ...]
    reason: str
    seconds: float
    child_kilobytes: int
    place: str = ""

    @property
    def stopped(self) -> bool:
        """Whether it ended the reading process."""
        return self.reason == DecoderStoppedError.reason


def outcomes(files: Sequence[Path], mutants: int, seed: int, kept: Path) -> Iterator[Outcome]:
    """Yield the outcome of each mutant, taking the files in turn.

    Args:
        files: sound Part 10 files.
        mutants: of all files together.
        seed: of the damage.
        kept: folder where the mutant is written; the last one stays there.
    """
    contents = [file.read_bytes() for file in files]
    path = kept / "mutant.dcm"
    with Decoder() as decoder:
        for number in range(mutants):
            at = number % len(files)
            damaged = mutant(contents[at], np.random.default_rng([seed, number]))
            path.write_bytes(damaged.content)
            started = time.monotonic()
            reason = outcome_of(path, decoder, kept)
            yield Outcome(
                source=files[at].name,
                number=number,
                damages=damaged.damages,
                reason=reason,
                seconds=time.monotonic() - started,
                child_kilobytes=peak_kilobytes(decoder.process_id),
            )


def outcome_of(path: Path, decoder: Decoder, folder: Path) -> str:
    """Read and derive the series in a file; return `derived` or the reason code."""
    found = find_series(path, decoder, EVERYTHING)
    if not found.candidates:
        (refusal,) = (*found.refused, *found.skipped)
        return refusal.reason
    (candidate,) = found.candidates
    try:
        volume = read_series(candidate, decoder)
        derive(volume, folder)
    except StillscanError as error:
        return error.reason
    return DERIVED


def derive(volume: Volume, folder: Path) -> None:
    """Derive the series with the identity denoiser; the output is removed again."""
    with SeriesWriter(volume, CONTROL, folder) as writer:
        for block in volume.blocks():
            writer.add(Unchanged(block, block.pixels))
        writer.finish()
        writer.discard()


def peak_kilobytes(process_id: int | None) -> int:
    """Return the peak memory of a process, 0 if it has ended."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) if lines else 0


def real_files(data: Path) -> list[Path]:
    """Return one file of each kind of the development data."""
    return [sorted((data / "dev" / "dicom").glob(pattern))[0] for pattern in REAL_FILES]


def main() -> None:
    """Run the fuzzing and print the outcomes."""
    parser = argparse.ArgumentParser(prog="python -m bench.robustness.fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the mutant that is being read")
    parser.add_argument("files", type=Path, nargs="*")
    arguments = parser.parse_args()
    files = arguments.files or real_files(Path(os.environ["STILLSCAN_DATA"]))
    kept = arguments.keep or Path(tempfile.mkdtemp(prefix="stillscan-fuzz-"))
    print(f"the mutant that is read: {kept / 'mutant.dcm'}")
    found = list(outcomes(files, arguments.mutants, arguments.seed, kept))
    print(table(found, lambda each: each.source))


def table(found: Sequence[Outcome], row_of: Callable[[Outcome], str]) -> str:
    """Outcomes by row, how many ended for each reason, and the most memory of both processes."""
    rows: dict[str, list[Outcome]] = defaultdict(list)
    for each in found:
        rows[row_of(each)[-48:]].append(each)
    lines = [f"{'':<48}{'tried':>7}{'derived':>9}{'refused':>9}{'faults':>8}{'slowest':>10}"]
    for name, here in {**rows, "all": found}.items():
        derived = sum(each.reason == DERIVED for each in here)
        faults = sum(each.reason in FAULTY for each in here)
        slowest = max((each.seconds for each in here), default=0.0)
        lines.append(
            f"{name:<48}{len(here):>7}{derived:>9}{len(here) - derived - faults:>9}{faults:>8}"
            f"{slowest:>8.2f} s"
        )
    reasons = Counter(each.reason for each in found).most_common()
    lines.append(", ".join(f"{reason} {number}" for reason, number in reasons))
    child = max((each.child_kilobytes for each in found), default=0)
    lines.append(
        f"most memory: {peak_kilobytes(os.getpid()) >> 10} MiB, reading process {child >> 10} MiB"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
