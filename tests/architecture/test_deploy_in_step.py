"""The files in `deploy/` say what the code does: variables, ports, paths, times, memory, metrics and codes."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml

from textllm_adapters.documents.child import _MEMORY_BYTES
from textllm_adapters.postgres.engine import _CONNECTIONS
from textllm_adapters.settings import CONFIG_KEYS, ENVIRONMENT, SECRET_FILES, Settings, load_settings
from textllm_adapters.telemetry.metrics import PrometheusTelemetry
from textllm_cli.commands.serve import FILES, serve
from textllm_core.errors import TextLLMError
from textllm_core.problem_details import STATUS
from textllm_http.control import SERVICE_S, SETTLING_S
from textllm_http.routes import operations

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
OVERLAY = DEPLOY / "kubernetes" / "overlays" / "production"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = (DEPLOY / "systemd" / "textllm.service").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VARIABLES = {*ENVIRONMENT, *SECRET_FILES, "TEXTLLM_CONFIG"} | {
    "TEXTLLM_" + key.upper().replace(".", "__") for key in CONFIG_KEYS
}
GRACE_S = Settings().stream_drain_s + 40  # as docs/server.md and `serve` want it of a process manager
PORT = signature(serve).parameters["port"].default
MEBIBYTE = 1024 * 1024
WORKER_BYTES = (
    84_200_000 + 13_600_000 + 5_000 * 43_500
)  # docs/performance.md: the worker, its supervisor, 5,000 streams


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


COMPOSE = read(DEPLOY / "compose.yaml")
SERVICES = COMPOSE["services"]
MANIFESTS = {path.stem: read(path) for path in BASE.glob("*.yaml")}
PODS = {name: MANIFESTS[name]["spec"]["template"] for name in ("deployment", "migration")}
SERVER = PODS["deployment"]["spec"]["containers"][0]


def literals(folder: Path) -> dict[str, str]:
    (generated,) = read(folder / "kustomization.yaml")["configMapGenerator"]
    assert generated["name"] == "textllm"
    return dict(literal.split("=", 1) for literal in generated["literals"])


def variables_set() -> Iterator[tuple[str, dict[str, str]]]:
    """Where variables are set, and to what."""
    yield "compose.yaml", COMPOSE["x-textllm"]["environment"]
    yield "base", literals(BASE)
    yield "production", literals(OVERLAY)
    yield "textllm.service", dict(pair.split("=", 1) for pair in re.findall(r"TEXTLLM_\w+=\S+", UNIT))
    yield "Dockerfile", dict(re.findall(r"(TEXTLLM_\w+)=(\S+)", DOCKERFILE))


def test_every_variable_that_is_set_is_one_of_the_settings() -> None:
    unknown = {(where, name) for where, given in variables_set() for name in given if name not in VARIABLES}
    assert unknown == set()
    assert all(given for _, given in variables_set())


def test_what_kubernetes_sets_makes_settings(tmp_path: Path) -> None:
    given = literals(BASE) | literals(OVERLAY)
    secrets = {name: path for name, path in given.items() if name in SECRET_FILES}
    (mount,) = {str(Path(path).parent) for path in secrets.values()}
    for path in secrets.values():
        value = "postgresql://u:p@h/d" if path.endswith("database_url") else "0123456789abcdef"
        (tmp_path / Path(path).name).write_text(value)
    environ = given | {name: path.replace(mount, str(tmp_path)) for name, path in secrets.items()}
    assert load_settings(cwd=tmp_path, environ=environ).s3.enabled
    for pod in PODS.values():
        assert pod["spec"]["enableServiceLinks"] is False  # their variables begin with TEXTLLM_, and would be refused
        assert mount in {each["mountPath"] for each in pod["spec"]["containers"][0]["volumeMounts"]}


def test_the_script_makes_each_secret_of_compose_once(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets.sh"
    script.write_bytes((DEPLOY / "make-secrets.sh").read_bytes())
    environ = {"PATH": "/usr/bin:/bin"}
    assert subprocess.run(["sh", script], env=environ, stderr=subprocess.DEVNULL, check=False).returncode == 1
    subprocess.run(["sh", script], env=environ | {"OPENAI_API_KEY": "sk-test"}, check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {f"./secrets/{name}" for name in made} == {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o444}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert made["openai_api_key"] == "sk-test\n"
    subprocess.run(["sh", script], env=environ, check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    given = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value).replace("/run/secrets", str(tmp_path / "secrets"))
        for name, value in COMPOSE["x-textllm"]["environment"].items()
    }
    settings = load_settings(cwd=tmp_path, environ=given)
    assert settings.database.endswith(f"{made['database_password'].strip()}@postgres/textllm")


def test_every_secret_of_compose_is_given_to_whoever_reads_it() -> None:
    read_there = re.compile(r"/run/secrets/(\w+)")
    for name, service in SERVICES.items():
        said = set(read_there.findall(json.dumps(service)))
        if name == "postgres":
            said |= set(read_there.findall((DEPLOY / "compose" / "create-database.sh").read_text()))
        assert said == set(service["secrets"]) <= COMPOSE["secrets"].keys(), name
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {volume for volume in used if not volume.startswith("./")} == COMPOSE["volumes"].keys()
    assert all((DEPLOY / volume).is_file() for volume in used if volume.startswith("./"))
    assert (DEPLOY / "secrets").name + "/" in (ROOT / ".gitignore").read_text()


def test_everyone_waits_for_the_end_as_long_as_it_may_take() -> None:
    assert Settings().stream_drain_s + SERVICE_S + SETTLING_S <= GRACE_S
    assert SERVICES["textllm"]["stop_grace_period"] == f"{GRACE_S:.0f}s"
    assert PODS["deployment"]["spec"]["terminationGracePeriodSeconds"] == GRACE_S
    assert f"TimeoutStopSec={GRACE_S:.0f}\n" in UNIT
    assert f"LimitNOFILE={FILES}\n" in UNIT


def test_everyone_knows_the_port_and_the_probes() -> None:
    assert f"EXPOSE {PORT}\n" in DOCKERFILE
    assert f'"--server", "http://127.0.0.1:{PORT}"]' in DOCKERFILE
    assert SERVICES["textllm"]["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert SERVER["ports"] == [{"name": "http", "containerPort": PORT}]
    (port,) = MANIFESTS["service"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (PORT, "http")
    live, ready = SERVER["livenessProbe"], SERVER["readinessProbe"]
    assert {live["httpGet"]["path"]} == operations.live.paths
    assert {ready["httpGet"]["path"]} == operations.ready.paths
    assert (live["initialDelaySeconds"], live["periodSeconds"]) == (10, 30)
    assert (ready["initialDelaySeconds"], ready["periodSeconds"]) == (5, 10)
    (endpoint,) = MANIFESTS["service-monitor"]["spec"]["endpoints"]
    assert {endpoint["path"]} == operations.metrics.paths
    assert endpoint["authorization"]["credentials"]["key"] in literals(BASE)["TEXTLLM_METRICS_TOKEN_FILE"]


def test_a_pod_has_the_memory_for_what_it_does_at_once() -> None:
    (processors,) = (int(given["value"]) for given in SERVER["env"] if given["name"] == "PYTHON_CPU_COUNT")
    limit = int(SERVER["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024 * MEBIBYTE
    assert limit > WORKER_BYTES + (processors + 1) * _MEMORY_BYTES
    assert int(SERVER["resources"]["requests"]["memory"].removesuffix("Mi")) * MEBIBYTE > WORKER_BYTES


def test_as_many_pods_as_there_may_be_find_connections() -> None:
    spec = MANIFESTS["autoscaler"]["spec"]
    surge = MANIFESTS["deployment"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    assert _CONNECTIONS * (spec["maxReplicas"] + surge) < 97  # PostgreSQL has 100, three of them for superusers


def test_kustomize_finds_each_file_and_each_name() -> None:
    assert {f"{name}.yaml" for name in MANIFESTS.keys() - {"kustomization"}} == set(
        MANIFESTS["kustomization"]["resources"]
    )
    overlay = read(OVERLAY / "kustomization.yaml")
    named = {patch["path"] for patch in overlay["patches"]} | {name for name in overlay["resources"] if "/" not in name}
    assert named | {"kustomization.yaml"} == {path.name for path in OVERLAY.iterdir()}
    known = {(each["kind"], each["metadata"]["name"]) for name, each in MANIFESTS.items() if name != "kustomization"}
    for patch in overlay["patches"]:
        patched = read(OVERLAY / patch["path"])
        assert (patched["kind"], patched["metadata"]["name"]) in known
    assert [image["newTag"] for image in overlay["images"]] == [PROJECT["version"]]


def test_selectors_select_the_servers_pods() -> None:
    labels = PODS["deployment"]["metadata"]["labels"]
    assert MANIFESTS["deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["service"]["spec"]["selector"] == labels
    assert MANIFESTS["service"]["metadata"]["labels"] == labels
    for name in ("disruption-budget", "service-monitor"):
        assert MANIFESTS[name]["spec"]["selector"]["matchLabels"] == labels
    policy = MANIFESTS["network-policy"]["spec"]["podSelector"]["matchLabels"].items()
    assert all(policy <= pod["metadata"]["labels"].items() for pod in PODS.values())
    assert PODS["migration"]["metadata"]["labels"] != labels


@pytest.mark.parametrize("name", PODS)
def test_pods_may_do_no_more_than_they_must(name: str) -> None:
    spec = PODS[name]["spec"]
    (container,) = spec["containers"]
    number = int(re.findall(r"USER (\d+):\1\n", DOCKERFILE)[0])
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsNonRoot"]) == (number, True)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"/data", "/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_the_image_is_of_this_version_and_these_files() -> None:
    assert f"ARG VERSION={PROJECT['version']}\n" in DOCKERFILE
    base = re.findall(r"^ARG BASE=(\S+)", DOCKERFILE, re.MULTILINE)[0]
    assert f'image.base.name="{base}"' in DOCKERFILE
    extras = re.findall(r'^ARG EXTRAS="(.*)"', DOCKERFILE, re.MULTILINE)[0].split()
    assert set(extras) < PROJECT["optional-dependencies"].keys()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / path).exists() for path in allowed)
    copied = [
        path for paths in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for path in paths.split()
    ]
    assert [path for path in copied if not any(each.startswith(path) for each in allowed)] == []
    pinned = re.findall(r"^[a-z].*", (DEPLOY / "build-requirements.txt").read_text(), re.MULTILINE)
    assert {"uv", "hatchling"} <= {line.split("==")[0] for line in pinned}
    assert all(line.endswith(" \\") and "==" in line for line in pinned)


def expressions() -> list[str]:
    """All that the dashboard and the alerts ask Prometheus."""
    (group,) = read(DEPLOY / "monitoring" / "alerts.yaml")["groups"]
    dashboard = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    return [rule["expr"] for rule in group["rules"]] + asked + queries


def test_dashboard_and_alerts_ask_for_metrics_that_there_are() -> None:
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)", PrometheusTelemetry().expose().decode(), re.MULTILINE))
    there_are = {name for name, kind in kinds.items() if kind in {"counter", "gauge"}}
    there_are |= {f"{name}_bucket" for name, kind in kinds.items() if kind == "histogram"}
    asked = {name for expression in expressions() for name in re.findall(r"textllm_\w+", expression)}
    assert asked - there_are == set()
    assert len(asked) > 15


def test_alerts_name_codes_that_there_are() -> None:
    codes = {kind.code for kind in STATUS} | {TextLLMError.code}
    named = [code for expression in expressions() for code in re.findall(r'code=~?"([^"]+)"', expression)]
    assert named
    assert [code for code in named if not any(re.fullmatch(code, each) for each in codes)] == []


def test_each_alert_is_tried_out() -> None:
    (group,) = read(DEPLOY / "monitoring" / "alerts.yaml")["groups"]
    tried = (DEPLOY / "monitoring" / "alerts_test.yaml").read_text()
    assert [rule["alert"] for rule in group["rules"] if tried.count(rule["alert"]) < 2] == []
