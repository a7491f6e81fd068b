"""What ships beside the image passes the checks of the programs that will read it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.deploy.containers import ROOT, Images

pytestmark = [pytest.mark.container, pytest.mark.timeout(2400)]

DEPLOY = {ROOT / "deploy": "/deploy:ro", ROOT / "Dockerfile": "/Dockerfile:ro"}
KUBERNETES_VALIDATE = "kubernetes-validate==1.37.0"  # which brings the schemas of Kubernetes 1.37
OPERATOR_MODELS = "cloudcoil-models-prometheus-operator==0.80.1.0"  # which knows its operator's fields
# What a model drops, it does not know.
MONITOR = """
import sys, yaml
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
given = yaml.safe_load(open(sys.argv[1]))
known = ServiceMonitor.model_validate(given).model_dump(by_alias=True, exclude_none=True, mode="json")
assert known == given, known
"""


def uv(*arguments: str) -> str:
    """What a tool says that uv fetches."""
    program = shutil.which("uv")
    if program is None:
        pytest.skip("the schemas are fetched by uv: pip install uv")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=600, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_docker_compose_reads_the_compose_file(images: Images, tools: str) -> None:
    images.run(tools, "docker-compose", "-f", "/deploy/compose.yaml", "config", "--quiet", folders=DEPLOY)


@pytest.mark.parametrize("folder", ["base", "overlays/production"])
def test_kustomize_builds_what_kubernetes_takes(images: Images, tools: str, tmp_path: Path, folder: str) -> None:
    built = tmp_path / "built.yaml"
    built.write_text(images.run(tools, "kubectl", "kustomize", f"/deploy/kubernetes/{folder}", folders=DEPLOY))
    said = uv("tool", "run", "--from", KUBERNETES_VALIDATE, "kubernetes-validate", "--strict", str(built))
    kinds = built.read_text().count("\nkind: ")
    assert said.count(" passed for resource ") == kinds - 1, said  # of a ServiceMonitor it knows nothing


def test_the_prometheus_operator_knows_the_monitors_fields() -> None:
    monitor = ROOT / "deploy" / "kubernetes" / "base" / "service-monitor.yaml"
    uv("run", "--no-project", "--with", OPERATOR_MODELS, "python", "-c", MONITOR, str(monitor))


def test_prometheus_takes_the_rules_and_they_fire_when_they_should(images: Images, tools: str) -> None:
    images.run(tools, "promtool", "check", "rules", "/deploy/monitoring/alerts.yaml", folders=DEPLOY)
    images.run(tools, "promtool", "test", "rules", "/deploy/monitoring/alerts_test.yaml", folders=DEPLOY)


def test_systemd_takes_the_unit_and_finds_it_hardened(images: Images, tools: str) -> None:
    unit = "/deploy/systemd/textllm.service"
    images.run(tools, "systemd-analyze", "verify", unit, folders=DEPLOY)
    images.run(tools, "systemd-analyze", "security", "--offline=true", "--threshold=20", unit, folders=DEPLOY)
