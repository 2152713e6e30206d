"""Last step of the build, inside the image: bytecode and the bill of materials.

The bill lists the contents of the image: Debian packages, Python packages with the digests of their
wheels, bundles with those of their weights, all with their licences.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.metadata
import json
import os
import py_compile
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

CODE = ("/opt/stillscan/stillscan",)
LOCK = Path("/opt/stillscan/packages.lock")
DPKG_STATUS = Path("/var/lib/dpkg/status")
UNKNOWN = "see its documentation"

Component = dict[str, Any]


def main() -> None:
    """Finish the image."""
    application = os.environ["HOLOSCAN_APPLICATION"]
    for folder in (application, *CODE):
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(folder, quiet=1, invalidation_mode=mode)
    documents = Path(os.environ["HOLOSCAN_DOCS_PATH"])
    manifest = json.loads(Path(os.environ["HOLOSCAN_APP_MANIFEST_PATH"]).read_text())
    components = [
        *debian_packages(DPKG_STATUS.read_text(encoding="utf-8") if DPKG_STATUS.exists() else ""),
        *python_packages(locked_digests()),
        *bundles(Path(os.environ["HOLOSCAN_MODEL_PATH"])),
    ]
    bill = bill_of_materials(components, manifest["version"], build_time())
    (documents / "sbom.cdx.json").write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    (documents / "LICENCES.md").write_text(licences(components), encoding="utf-8")


def build_time() -> int:
    """Return SOURCE_DATE_EPOCH; without it, the time of the settings file, set by the build."""
    stamped = Path(os.environ["HOLOSCAN_CONFIG_PATH"]).stat().st_mtime
    return int(os.environ.get("SOURCE_DATE_EPOCH", stamped))


def bill_of_materials(components: list[Component], version: str, epoch: int) -> dict[str, Any]:
    """Build a CycloneDX 1.5 document; its serial number is derived from its contents."""
    listed = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, listed)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "application",
                "bom-ref": "stillscan",
                "name": "stillscan",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
    }


def component(kind: str, name: str, version: str, purl: str, licence: str) -> Component:
    """Build the entry of one part of the image."""
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"name": licence}}],
    }


def debian_packages(status: str) -> Iterator[Component]:
    """Yield the packages of dpkg's status file; licences are in their copyright files."""
    for paragraph in status.split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields["Package"] and "installed" in str(fields["Status"]).split():
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
            licence = f"/usr/share/doc/{name}/copyright"
            yield component("library", name, version, purl, licence)


def python_packages(digests: Mapping[str, str]) -> Iterator[Component]:
    """Yield the Python distributions with the digests of their wheels."""
    found = {_plain(each.metadata["Name"]): each for each in importlib.metadata.distributions()}
    for name, distribution in sorted(found.items()):
        purl = f"pkg:pypi/{name}@{distribution.version}"
        metadata: Message = distribution.metadata  # type: ignore[assignment]
        made = component("library", name, distribution.version, purl, licence_of(metadata))
        if name in digests:
            made["hashes"] = [{"alg": "SHA-256", "content": digests[name]}]
        yield made


def licence_of(metadata: Message) -> str:
    """Return the licence of a distribution: an expression, classifiers, or a short text."""
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    classified = [
        each.rpartition(" :: ")[2]
        for each in metadata.get_all("Classifier") or []
        if each.startswith("License ::") and each != "License :: OSI Approved"
    ]
    if classified:
        return ", ".join(classified)
    first_line = str(metadata["License"] or "").strip().partition("\n")[0]
    return first_line if first_line not in ("", "UNKNOWN") else UNKNOWN


def locked_digests(lock: Path = LOCK) -> dict[str, str]:
    """Read the digests of the installed wheels, by package."""
    lines = (line.split() for line in lock.read_text(encoding="utf-8").splitlines())
    return {
        _plain(words[0].partition("==")[0]): words[1].rpartition(":")[2]
        for words in lines
        if len(words) == 2
    }


def bundles(models: Path) -> Iterator[Component]:
    """Yield the trained networks: each file of weights of each bundle."""
    for metadata in sorted(models.glob("*/configs/metadata.json")):
        version = str(json.loads(metadata.read_text(encoding="utf-8")).get("version", "0"))
        bundle = metadata.parent.parent
        for weights in sorted(bundle.glob("models/*.safetensors")):
            name = f"bundle-{bundle.name}-{weights.stem}"
            purl = f"pkg:generic/stillscan-{name}@{version}"
            made = component("machine-learning-model", name, version, purl, "Apache-2.0")
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            yield made | {"hashes": [{"alg": "SHA-256", "content": digest}]}


def licences(components: list[Component]) -> str:
    """Return the licences of all parts as a table for a person."""
    lines = [
        "# Licences of the software in this image",
        "",
        "The texts: `*.dist-info` below /opt/stillscan/site-packages, /usr/share/doc/*/copyright.",
        "",
        "| part | version | licence |",
        "|---|---|---|",
    ]
    for each in components:
        licence = each["licenses"][0]["license"]["name"].replace("|", "/")
        lines.append(f"| {each['name']} | {each['version']} | {licence} |")
    return "\n".join(lines) + "\n"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    main()
