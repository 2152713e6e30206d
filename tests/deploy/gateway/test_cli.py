"""`stillscan-gateway`: what is wrong with the settings is said before anything runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.pacs.processes import wait_until
from stillscan.deploy.gateway import cli
from tests.series_factory import make_series

RUNNER = CliRunner()


@pytest.fixture
def config(tmp_path):
    """Settings in a file; `config(text)` gives its path."""

    def write(text: str) -> str:
        file = tmp_path / "gateway.yaml"
        file.write_text(f"data: {tmp_path / 'data'}\n{text}")
        return str(file)

    return write


def test_check_shows_the_settings(config):
    done = RUNNER.invoke(cli.app, ["check", "-c", config("receiver: {port: 104}\n")])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["receiver"]["port"] == 104


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("receivr: {}\n", "unknown key 'receivr'"),
        ("rules: [{name: a, match: {Modalty: MR}}]\n", "Modalty"),
        ("application: missing.yaml\n", "missing.yaml"),
    ],
)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_wrong_settings_end_with_exit_code_2(config, text, said, command):
    done = RUNNER.invoke(cli.app, [command, "-c", config(text)])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert said in json.loads(line)["message"]


def test_the_exit_code_is_that_of_the_process(config):
    program = [sys.executable, "-m", "stillscan.deploy.gateway.cli", "serve"]
    done = subprocess.run(
        [*program, "-c", config("receivr: {}\n")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "unknown key 'receivr'" in json.loads(line)["message"]


def test_inspect_says_which_rule_each_series_meets(tmp_path, config):
    make_series(tmp_path / "in", slices=2)
    make_series(tmp_path / "in", modality="CT", slices=2)
    make_series(tmp_path / "in", modality="CR", slices=1)
    text = (
        "rules:\n"
        "- {name: heads, match: {Modality: MR}, destinations: [out]}\n"
        "- {name: no-ct, match: {Modality: CT}, process: false}\n"
        "destinations: [{name: out, kind: folder, folder: out}]\n"
    )
    done = RUNNER.invoke(cli.app, ["inspect", str(tmp_path / "in"), "-c", config(text)])
    assert done.exit_code == 0
    assert sorted(line.partition(": ")[2] for line in done.stdout.splitlines()) == [
        "no rule matches: not processed, kept for the retention time",
        "rule 'heads': processed, then sent to out",
        "rule 'no-ct': not processed",
    ]


def test_status_of_a_gateway_that_never_ran_is_empty(config):
    done = RUNNER.invoke(cli.app, ["status", "-c", config("")])
    shown = json.loads(done.stdout)
    assert shown["jobs"] == []
    assert shown["counts"]["open_series"] == 0


@pytest.mark.slow
def test_the_service_ends_with_0_after_sigterm_and_leaves_no_process(tmp_path):
    # from a folder with a `deploy` of its own, and with data where the service was started
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "__init__.py").write_text("raise ImportError\n")
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = one.getsockname()[1], two.getsockname()[1]
    (tmp_path / "gateway.yaml").write_text(
        "data: here\nreceiver: {{port: {}}}\nweb: {{port: {}}}\n".format(*ports)
    )
    script = Path(sys.executable).with_name("stillscan-gateway")
    service = subprocess.Popen(
        [script, "serve", "-c", "gateway.yaml"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert service.stderr is not None
    first = json.loads(service.stderr.readline())
    assert first["message"] == "gateway started"
    assert set(first["parts"]) == {"receiver", "web", "planner", "worker", "sender"}
    second = subprocess.run(
        [script, "serve", "-c", "gateway.yaml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert second.returncode != 0
    assert b"gateway-runs" in second.stderr
    service.send_signal(signal.SIGTERM)
    assert service.wait(60) == 0
    lines = [json.loads(line) for line in service.stderr]
    assert lines[-1]["message"] == "gateway stopped"
    assert not [line for line in lines if line["level"] == "error"]
    service.stderr.close()
    assert (tmp_path / "here" / "gateway.sqlite").exists()
    for process in first["parts"].values():
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.slow
def test_a_port_that_is_in_use_is_reported_and_taken_when_it_is_free(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as web:
        web_port = web.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as other:
        (tmp_path / "gateway.yaml").write_text(
            f"receiver: {{port: {other.getsockname()[1]}}}\nweb: {{port: {web_port}}}\n"
        )
        script = Path(sys.executable).with_name("stillscan-gateway")
        service = subprocess.Popen(
            [script, "serve", "-c", "gateway.yaml"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        assert service.stderr is not None
        try:
            assert any("part-fault" in line for line in service.stderr)
            wait_until(lambda: _ready(web_port) == 503, 60, "the web process answers")
            other.close()
            wait_until(lambda: _ready(web_port) == 200, 60, "the receiver takes the port")
            service.send_signal(signal.SIGTERM)
            assert service.wait(60) == 0
        finally:
            service.kill()
            service.stderr.close()


def _ready(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
