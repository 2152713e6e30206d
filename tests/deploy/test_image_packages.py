"""What goes into the image: locks, wheels, bill of materials."""

import csv
import importlib.metadata
import json
import zipfile
from email.message import Message
from pathlib import Path
from typing import get_args

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from stillscan.deploy.image import finish
from stillscan.deploy.image.context import settle
from stillscan.deploy.image.packages import (
    CUDA_LEFT_OUT,
    LEFT_OUT,
    Locked,
    Variant,
    digest,
    image_packages,
    pinned_versions,
    read_lock,
)
from stillscan.deploy.image.wheels import WheelError, is_used, locked_wheels, unpack

VARIANTS = get_args(Variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_lock_names_the_closure_of_the_requirements(variant: Variant) -> None:
    names = {canonicalize_name(name) for name in image_packages(variant)}
    assert {each.name for each in read_lock(variant)} == names


@pytest.mark.parametrize("variant", VARIANTS)
def test_locked_versions_are_those_of_the_constraints(variant: Variant) -> None:
    pins = pinned_versions()
    assert {each.name: each.version for each in read_lock(variant)} == {
        each.name: pins[each.name] for each in read_lock(variant)
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_locked_wheel_has_a_digest(variant: Variant) -> None:
    assert all(len(each.sha256) == 64 for each in read_lock(variant))


def test_nothing_left_out_is_locked() -> None:
    for variant in VARIANTS:
        assert not {each.name for each in read_lock(variant)} & (LEFT_OUT.keys() | CUDA_LEFT_OUT)


def test_only_torch_differs_where_both_variants_have_a_package() -> None:
    cpu = {each.name: each for each in read_lock("cpu")}
    cuda = {each.name: each for each in read_lock("cuda")}
    assert {name for name in cpu if cuda[name] != cpu[name]} == {"torch"}


def wheel(folder: Path, files: dict[str, str], name: str = "thing") -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def test_a_wheel_with_another_digest_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"thing.py": ""})
    right = Locked("thing", "1.0", digest(path))
    assert locked_wheels([right], tmp_path) == [path]
    with pytest.raises(WheelError, match=r"no wheel of thing 1\.0"):
        locked_wheels([Locked("thing", "1.0", "0" * 64)], tmp_path)


def test_unpacking_leaves_out_what_is_never_imported(tmp_path: Path) -> None:
    files = {
        "thing/__init__.py": "",
        "thing/tests/test_thing.py": "",
        "thing.pth": "import os",
        "thing-1.0.data/purelib/beside.py": "",
        "thing-1.0.data/scripts/thing": "",
    }
    unpack([wheel(tmp_path, files)], tmp_path / "site")
    there = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.*")}
    assert there == {"thing/__init__.py", "beside.py"}
    assert is_used("torch/bin/torch_shm_manager")
    assert not is_used("torch/bin/protoc")


def test_links_that_a_wheel_describes_are_made(tmp_path: Path) -> None:
    rows = [["thing-1.0.data/purelib/lib/libthing.so", "libthing.so.1", "0"]]
    described = "".join(",".join(row) + "\n" for row in rows)
    assert list(csv.reader(described.splitlines())) == rows
    files = {"thing-1.0.data/purelib/lib/libthing.so.1": "x"}
    unpack(
        [wheel(tmp_path, files | {"thing-1.0.dist-info/symlinks.txt": described})],
        tmp_path / "site",
    )
    assert (tmp_path / "site/lib/libthing.so").read_text() == "x"


def test_files_bear_one_time_and_modes_of_nobody(tmp_path: Path) -> None:
    script = tmp_path / "folder" / "script"
    script.parent.mkdir(mode=0o700)
    script.write_text("")
    script.chmod(0o700)
    settle(tmp_path, 1_000_000)
    for path in (tmp_path, script.parent, script):
        assert path.stat().st_mtime == 1_000_000
        assert path.stat().st_mode & 0o777 == 0o755


def test_the_bill_of_materials_is_valid(tmp_path: Path) -> None:
    lock = tmp_path / "packages.lock"
    lock.write_text(f"numpy==2 --hash=sha256:{'0' * 64}\n")
    status = "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\nArchitecture: amd64\n"
    components = [
        *finish.debian_packages(status),
        *finish.python_packages(finish.locked_digests(lock)),
        *finish.bundles(Path(__file__).resolve().parents[2] / "models/bundles"),
    ]
    bill = json.dumps(finish.bill_of_materials(components, "0.1.0", 1_000_000))
    validator = JsonStrictValidator(SchemaVersion.V1_5)
    assert validator.validate_str(bill) is None
    names = {each["name"]: each for each in components}
    assert names["numpy"]["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    assert {"libc6", "bundle-mr-model"} <= set(names)


def test_a_licence_is_read_from_what_the_metadata_has() -> None:
    metadata = Message()
    assert finish.licence_of(metadata) == finish.UNKNOWN
    metadata["License"] = "Some terms\nand more"
    assert finish.licence_of(metadata) == "Some terms"
    metadata["Classifier"] = "License :: OSI Approved :: MIT License"
    assert finish.licence_of(metadata) == "MIT License"
    metadata["License-Expression"] = "MIT"
    assert finish.licence_of(metadata) == "MIT"


def test_every_locked_package_that_is_installed_names_its_licence() -> None:
    unnamed = {
        each.name
        for each in read_lock("cpu")
        if finish.licence_of(importlib.metadata.metadata(each.name)) == finish.UNKNOWN
    }
    assert not unnamed
