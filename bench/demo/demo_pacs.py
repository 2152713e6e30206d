"""The gateway beside a real PACS: a series is sent, and the derived series appears beside it.

    make demo-pacs        (or: python -m bench.demo.demo_pacs [--out FOLDER])

Orthanc and the gateway run in a network namespace of their own, with the files of `deploy/orthanc`.
dcmtk's storescu sends a generated head to Orthanc; Orthanc's script passes it on when it is stable;
the gateway denoises it and sends the result back. What is in the PACS then is shown, and that
nothing goes round in circles.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from pydicom import dcmread
from rich.console import Console
from rich.table import Table

from bench.pacs import namespace
from bench.pacs.processes import ROOT, Gateway, Orthanc, wait_until

FILES = ROOT / "deploy" / "orthanc"
TOOLS = {"Orthanc": "orthanc", "storescu": "dcmtk", "unshare": "util-linux", "ip": "iproute2"}
STABLE_S = 2
PATIENCE_S = 300.0
HTTP = 8042


def main() -> None:
    """Run the demo; the exit status tells whether the derived series arrived."""
    parser = argparse.ArgumentParser(prog="make demo-pacs", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output/pacs"), help="output folder, emptied first"
    )
    arguments = parser.parse_args()
    require_tools()
    namespace.enter(["bench.demo.demo_pacs", *sys.argv[1:]])
    shutil.rmtree(arguments.out, ignore_errors=True)
    sys.exit(0 if show(Console(), arguments.out.resolve()) else 1)


def require_tools() -> None:
    """Print the missing Debian packages and exit."""
    missing = sorted({package for tool, package in TOOLS.items() if not _which(tool)})
    if missing:
        sys.exit(f"make demo-pacs needs Debian's packages: apt-get install {' '.join(missing)}")


def show(console: Console, out: Path) -> bool:
    """Run all steps; return whether the derived series is in the PACS."""
    orthanc = pacs(out)
    gateway = Gateway(out / "gateway", gateway_settings())
    source = generated_series(console, out / "input")
    try:
        orthanc.start()
        console.print(f"PACS      Orthanc {orthanc.get('/system')['Version']}, AE title ORTHANC")
        with gateway:
            console.print(
                "gateway   AE title STILLSCAN; Orthanc forwards series that have been stable"
            )
            console.print(f"          for {STABLE_S} s (deploy/orthanc/stillscan.lua)")
            began = time.monotonic()
            send(source)
            console.print(
                f"storescu  sent {len(source)} instances, {time.monotonic() - began:.1f} s"
            )
            wait_until(lambda: len(orthanc.series()) == 2, PATIENCE_S, "the derived series comes")
            wait_until(gateway.is_idle, PATIENCE_S, "the gateway has delivered all")
            console.print(
                f"PACS      has the derived series, {time.monotonic() - began:.1f} s after the "
                "first instance was sent"
            )
            console.print(table(orthanc))
            derived = derived_series(orthanc)
            complete = len(derived["Instances"]) == len(source)
            console.print(f"loop      {guarded(orthanc, gateway, derived['ID'])}")
    finally:
        orthanc.kill()
    console.rule("Where to look")
    for file in sorted(gateway.places.reports.glob("*/2.25.*.html")):
        console.print(f"page      {file}", soft_wrap=True)
    console.print(f"log       {gateway.log_file}", soft_wrap=True)
    return complete


def pacs(out: Path) -> Orthanc:
    """Configure Orthanc as shipped, but on the loopback interface and with short delays."""
    orthanc = Orthanc(_which("Orthanc"), out / "orthanc", http_port=HTTP)
    file = out / "orthanc" / "orthanc.json"
    settings = json.loads((FILES / "orthanc.json").read_text()) | json.loads(file.read_text())
    settings |= {
        "StableAge": STABLE_S,
        "LuaScripts": [str(FILES / "stillscan.lua")],
        "DicomModalities": {"stillscan": ["STILLSCAN", "127.0.0.1", 11112]},
        "RegisteredUsers": {},
    }
    file.write_text(json.dumps(settings))
    return orthanc


def gateway_settings() -> dict[str, Any]:
    """Return the shipped settings for Orthanc, with loopback addresses and short delays."""
    settings: dict[str, Any] = yaml.safe_load((FILES / "gateway.yaml").read_text())
    del settings["data"], settings["web"]
    settings["receiver"]["host"] = "127.0.0.1"
    settings["destinations"][0]["host"] = "127.0.0.1"
    return settings | {"completeness": {"settled-s": 1.0}}


def generated_series(console: Console, folder: Path) -> list[Path]:
    """Write the generated head of `make demo`; its headers state the number of images.

    With it the gateway knows when the series is complete, however slow the machine is.
    """
    from bench.phantom.acquisition import Protocol
    from bench.phantom.series import generate_series

    generate_series(folder, Protocol())
    files = sorted(folder.iterdir())
    for file in files:
        instance = dcmread(file)
        instance.ImagesInAcquisition = len(files)
        instance.save_as(file)
    console.print(f"series    a generated T1-weighted head, {len(files)} slices")
    return files


def send(files: list[Path]) -> None:
    """Send files to the PACS with C-STORE."""
    command = [_which("storescu"), "-aec", "ORTHANC", "-aet", "SCANNER", "127.0.0.1", "4242"]
    subprocess.run([*command, *map(str, files)], check=True)


def table(orthanc: Orthanc) -> Table:
    """Show the series in the PACS."""
    shown = Table(title="In the PACS")
    for column in ("No.", "SeriesDescription", "instances", "SeriesInstanceUID"):
        shown.add_column(column)
    rows = [(each["MainDicomTags"], each) for each in orthanc.get("/series?expand")]
    for tags, each in sorted(rows, key=lambda row: int(row[0]["SeriesNumber"])):
        shown.add_row(
            tags["SeriesNumber"],
            tags.get("SeriesDescription", ""),
            str(len(each["Instances"])),
            tags["SeriesInstanceUID"],
        )
    return shown


def derived_series(orthanc: Orthanc) -> dict[str, Any]:
    """Return Orthanc's entry of the series that Stillscan made."""
    every: list[dict[str, Any]] = orthanc.get("/series?expand")
    return max(every, key=lambda each: int(each["MainDicomTags"]["SeriesNumber"]))


def guarded(orthanc: Orthanc, gateway: Gateway, derived: str) -> str:
    """Wait until the derived series is stable in Orthanc, and also send it back by hand.

    Raises:
        RuntimeError: if it was processed again.
    """
    log = orthanc.folder / "orthanc.log"
    said = f"series {derived} was made by Stillscan and is not sent"
    wait_until(lambda: said in log.read_text(), 60, "Orthanc holds the derived series for stable")
    request = urllib.request.Request(
        f"http://127.0.0.1:{HTTP}/modalities/stillscan/store", data=derived.encode()
    )
    urllib.request.urlopen(request, timeout=60).close()
    wait_until(lambda: len(gateway.overview.recent_jobs()) == 2, 60, "the gateway has seen it")
    wait_until(gateway.is_idle, 60, "the gateway is idle")
    back = gateway.overview.recent_jobs()[0]
    if back.state == "derived" or len(orthanc.series()) != 2:
        raise RuntimeError("the derived series was processed again")
    return (
        "Orthanc's script does not send the derived series back; sent back by hand, the gateway "
        f"does not process it ({back.reason})"
    )


def _which(tool: str) -> str:
    # /usr first: pynetdicom installs a storescu of its own into the environment
    return shutil.which(tool, path="/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/bin") or ""


if __name__ == "__main__":
    main()
