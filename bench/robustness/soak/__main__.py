"""`make soak`: runs every scenario in its own namespaces and writes `bench/results/soak.json`.

python -m bench.robustness.soak [--quick] [--only NAME ...] [--out FILE]

Loopback only; needs Linux, root (for `unshare`), Orthanc and dcmtk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from bench.pacs import namespace

if TYPE_CHECKING:  # imported inside the namespace alone
    from bench.robustness.soak.workplace import Figures, Workplace

# name: module and function
SCENARIOS = {
    "receiving": "load.receiving",
    "throughput": "load.throughput",
    "mixed": "load.mixed",
    "kills": "kills.kills",
    "drain": "drain.drain",
    "pacs-faults": "pacs_faults.pacs_faults",
    "disk-full": "disk.disk_full",
    "model-faults": "model_faults.model_faults",
    "partial-series": "partial.partial_series",
    "network": "network.network",
    "poison": "poison.poison",
}


def main() -> None:
    """Run the scenarios; the exit status tells whether every promise held."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short forms of the scenarios, as in the tests"
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of scenarios; default: all")
    parser.add_argument("--out", type=Path, default=Path("bench/results/soak.json"))
    parser.add_argument(
        "--work", type=Path, help="folder for all files, which are kept; default: temporary"
    )
    arguments = parser.parse_args()
    namespace.enter(["bench.robustness.soak", *sys.argv[1:]])

    from bench.machine import describe_machine
    from bench.robustness.soak.workplace import BrokenPromiseError, Workplace

    work = arguments.work or Path(tempfile.mkdtemp(prefix="stillscan-soak-"))
    results: dict[str, Figures] = {}
    broken = 0
    for name in arguments.only or SCENARIOS:
        place = Workplace(work / name, full=not arguments.quick)
        shutil.rmtree(place.folder, ignore_errors=True)
        began = time.monotonic()
        try:
            figures = scenario(name)(place)
        except (BrokenPromiseError, TimeoutError) as error:
            figures = {"broken": str(error)}
            broken += 1
        figures["seconds"] = round(time.monotonic() - began)
        results[name] = figures
        print(f"\n{name}")
        for key, value in figures.items():
            print(f"  {key:36} {value}", flush=True)
    report = {"machine": describe_machine(), "quick": arguments.quick, "scenarios": results}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if arguments.work is None and not broken:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if broken else 0)


def scenario(name: str) -> Callable[[Workplace], Figures]:
    """Return the function of a scenario."""
    module, _, function = SCENARIOS[name].partition(".")
    scenario = import_module(f"bench.robustness.soak.{module}")
    found: Callable[[Workplace], Figures] = getattr(scenario, function)
    return found


if __name__ == "__main__":
    main()
