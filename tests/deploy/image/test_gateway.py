"""The gateway in the image, started as the Kubernetes deployment starts it."""

import subprocess
import time
from pathlib import Path

import yaml

from tests.deploy.image.conftest import Image

KUBERNETES = Path(__file__).resolve().parents[3] / "deploy/kubernetes/gateway"
HEALTH = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/healthz').status)"


def test_the_gateway_serves_until_it_is_stopped(image: Image, output: Path) -> None:
    deployment = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())
    entry, *arguments = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    options = (
        f"--entrypoint={entry}",
        f"--volume={KUBERNETES / 'gateway.yaml'}:/etc/stillscan/gateway.yaml:ro",
        f"--volume={output}:/var/lib/stillscan",
        f"--name=stillscan-gateway-{output.parent.name}",
    )
    command = image.command(*arguments, options=options)
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    ask = [*image.podman, "exec", options[-1].partition("=")[2], "python3", "-c", HEALTH]
    answer = ""
    for _ in range(60):
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        answer = done.stdout.strip()
        if answer == "200" or gateway.poll() is not None:
            break
        time.sleep(0.5)
    gateway.terminate()
    log, _ = gateway.communicate(timeout=120)
    assert answer == "200", log
    assert gateway.returncode == 0, log
