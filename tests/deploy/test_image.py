"""The image serves as no root on a read-only file system, and ends in order."""

import json
import socket
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url
from tests.deploy.containers import Container, Images
from tests.e2e.conftest import API_KEY
from tests.servers.openai import OpenAIStandIn
from tests.servers.postgres import RunningServer

pytestmark = [pytest.mark.container, pytest.mark.timeout(2400)]

COMPILERS = {"cc", "gcc", "g++", "clang", "tcc", "as", "ld", "make", "rustc", "go", "pip", "pip3", "uv"}
MOST_BYTES = 600_000_000  # docs/deployment.md states the size
TOKEN = "a-token-of-the-operator"
START_TIMEOUT_S = 60
LOOK = """
import json, os, pathlib, stat
folders = [pathlib.Path(folder) for folder in os.environ["PATH"].split(":") if os.path.isdir(folder)]
data = os.stat("/data")
print(json.dumps({
    "programs": [path.name for folder in folders for path in folder.iterdir()],
    "changeable": [str(path) for path in pathlib.Path("/opt").rglob("*") if os.access(path, os.W_OK)],
    "data": [data.st_uid, stat.S_IMODE(data.st_mode)],
}))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def secrets_in(folder: Path, **values: str) -> Path:
    """Files as a container is given them, each with the line break of an editor."""
    folder.chmod(0o755)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def serves_and_ends(container: Container, url: str) -> None:
    """The first key, the first turn, a document, the check of its health, and the end."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_ready(url):
        assert time.monotonic() < deadline, container.log()
        time.sleep(0.2)
    key = container.run("textllm", "keys", "create", "--role", "admin").strip()
    by_key = {"Authorization": f"Bearer {key}"}
    assert httpx.post(f"{url}/chat", json={"message": "Hello"}).status_code == 401
    reply = httpx.post(f"{url}/chat", json={"message": "Hello"}, headers=by_key, timeout=30)
    assert reply.json()["text"] == "[0] You said: Hello"
    files = {"file": ("notes.txt", b"Tea at five.")}
    form = {"message": "When?", "user_id": "ada"}
    read = httpx.post(f"{url}/chat/file", data=form, files=files, headers=by_key, timeout=60)
    assert (read.status_code, read.json().get("file_type")) == (200, ".txt"), read.text
    assert httpx.get(f"{url}/metrics", headers=by_key).status_code == 403
    token = {"Authorization": f"Bearer {TOKEN}"}
    assert "textllm_turns_total" in httpx.get(f"{url}/metrics", headers=token).text
    assert "healthy" in container.run("textllm", "health", "--server", url)
    assert container.run("id", "-u").strip() == "10001"
    assert "the books balance" in container.run("textllm", "audit")
    assert container.stop() == 0, container.log()


def test_the_image_says_what_it_is_and_holds_nothing_to_build_with(images: Images, image: str) -> None:
    (inspected,) = json.loads(images.podman("inspect", image))
    config = inspected["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "--", "textllm"]
    assert config["Labels"]["org.opencontainers.image.title"] == "TextLLM"
    assert inspected["Healthcheck"]["Test"] == ["CMD", "textllm", "health", "--server", "http://127.0.0.1:8000"]
    assert inspected["Size"] < MOST_BYTES
    found = json.loads(images.run(image, "-c", LOOK, options=("--entrypoint", "python")))
    assert "textllm" in found["programs"]
    assert COMPILERS.isdisjoint(found["programs"])
    assert found["changeable"] == []  # the user who serves can change nothing of the program
    assert found["data"] == [10001, 0o700]


def test_it_serves_on_sqlite_and_a_read_only_file_system(images: Images, image: str, tmp_path: Path) -> None:
    port = free_port()
    secrets = secrets_in(tmp_path, openai=API_KEY, metrics=TOKEN)
    with OpenAIStandIn(api_key=API_KEY) as provider:
        environment = {
            "OPENAI_API_KEY_FILE": "/run/secrets/openai",
            "OPENAI_BASE_URL": provider.base_url,
            "TEXTLLM_METRICS_TOKEN_FILE": "/run/secrets/metrics",
        }
        command = ("serve", "--host", "0.0.0.0", "--port", str(port), "--grace-s", "1")
        folders = {secrets: "/run/secrets:ro"}
        with images.running(image, *command, environment=environment, folders=folders) as container:
            serves_and_ends(container, f"http://127.0.0.1:{port}")


def test_it_serves_on_postgresql_after_the_migration(
    images: Images, image: str, postgres_server: RunningServer, tmp_path: Path
) -> None:
    port = free_port()
    url = make_url(postgres_server.create_database()).set(drivername="postgresql")
    sockets = Path(str(url.query["host"]))
    secrets = secrets_in(tmp_path, openai=API_KEY, metrics=TOKEN, database=url.render_as_string(hide_password=False))
    sockets.chmod(0o755)
    with OpenAIStandIn(api_key=API_KEY) as provider:
        environment = {
            "OPENAI_API_KEY_FILE": "/run/secrets/openai",
            "OPENAI_BASE_URL": provider.base_url,
            "TEXTLLM_METRICS_TOKEN_FILE": "/run/secrets/metrics",
            "DATABASE_URL_FILE": "/run/secrets/database",
        }
        folders = {secrets: "/run/secrets:ro", sockets: str(sockets)}
        with images.running(image, "db", "upgrade", environment=environment, folders=folders) as migration:
            assert images.podman("wait", migration.name).strip() == "0", migration.log()
        command = ("serve", "--host", "0.0.0.0", "--port", str(port), "--grace-s", "1", "--workers", "2")
        with images.running(image, *command, environment=environment, folders=folders) as container:
            serves_and_ends(container, f"http://127.0.0.1:{port}")
    postgres_server.drop_database(url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False))
