"""How the image is asked of each engine, without one."""

import json
from pathlib import Path

import pytest

from stillscan.deploy.image.build import build_epoch, debian_sources, parse_arguments
from stillscan.deploy.image.engines import BuildError, Engine, find_engine

NAMES = ("buildah", "podman", "docker")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of the engines' names that write down what they are asked."""
    log = tmp_path / "calls"
    for name in NAMES:
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            "#!/usr/bin/python3\nimport json, sys\n"
            f"open({str(log)!r}, 'a').write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
            "sys.exit('fail' in sys.argv)\n"
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=None)
    return log


def asked(calls: Path) -> list[list[str]]:
    return [json.loads(line) for line in calls.read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_a_build_names_tag_arguments_and_time(name: str, calls: Path, tmp_path: Path) -> None:
    Engine(name, ("--root=/images",)).build(tmp_path, "stillscan:1", {"BASE": "base"}, 42)  # type: ignore[arg-type]
    (words,) = asked(calls)
    assert words[:2] == [name, "--root=/images"]
    assert {"--tag=stillscan:1", "--build-arg=BASE=base", str(tmp_path)} <= set(words)
    stamp = "--build-arg=SOURCE_DATE_EPOCH=42" if name == "docker" else "--timestamp=42"
    assert stamp in words


def test_an_engine_that_fails_is_a_build_error(calls: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="buildah build failed"):
        Engine("buildah", ("fail",)).build(tmp_path, "stillscan:1", {}, 0)


def test_the_first_engine_that_is_installed_is_taken(calls: Path, tmp_path: Path) -> None:
    assert find_engine(None, []).name == "buildah"
    (tmp_path / "bin/buildah").unlink()
    assert find_engine(None, []).name == "podman"
    assert find_engine("docker", ["--x"]) == Engine("docker", ("--x",))


def test_no_engine_is_a_build_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="buildah, podman, docker: not installed"):
        find_engine(None, [])


def test_debian_comes_with_its_security_updates() -> None:
    sources = debian_sources("http://mirror")
    assert "deb http://mirror/debian-security bookworm-security main" in sources


def test_the_time_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000")
    assert build_epoch() == 1_000_000


def test_a_base_is_made_or_named() -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--bootstrap", "--base", "debian:12"])
