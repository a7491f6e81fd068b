"""What `docs/embedding.md` prints runs as printed, in a server of each framework."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.servers.openai import OpenAIStandIn

PAGE = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text()
APPLICATIONS = dict(re.findall(r"[Ss]ave this as\s`([\w.]+)`[^\n]*:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"`granian --interface (\w+) (\w+):(\w+)`", PAGE)
PATIENCE_S = 60.0


def listening(port: int, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "the server did not start"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module", params=COMMANDS, ids=lambda command: command[1])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An application of the page, as one of its users."""
    interface, module, name = request.param
    folder = tmp_path_factory.mktemp(module)
    (folder / f"{module}.py").write_text(APPLICATIONS[f"{module}.py"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with OpenAIStandIn(api_key="sk-test") as provider:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(folder),
            "TEXTLLM_DATA_DIR": str(folder),
            "TEXTLLM_MAX_INPUT_LENGTH": "100",
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": provider.base_url,
        }
        command = [Path(sys.executable).parent / "granian", "--interface", interface, "--port", str(port)]
        with subprocess.Popen([*command, f"{module}:{name}"], cwd=folder, env=env) as server:
            try:
                deadline = time.monotonic() + PATIENCE_S
                while not listening(port, server):
                    assert time.monotonic() < deadline, "the server does not listen"
                    time.sleep(0.05)
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"X-User": "ada"}, timeout=60) as client:
                    yield client
            finally:
                server.terminate()
            assert server.wait(PATIENCE_S) == 0  # TextLLM was closed: a process that does not close it does not end


def test_all_frameworks_are_there() -> None:
    assert (
        [f"{module}.py" for _, module, _ in COMMANDS]
        == list(APPLICATIONS)
        == [
            "fastapi_app.py",
            "django_app.py",
            "django_wsgi.py",
        ]
    )


def test_a_reply_is_plain_json(client: httpx.Client) -> None:
    first = client.post("/ask", json={"text": "Hello"}).raise_for_status().json()
    assert (first["text"], first["user_id"]) == ("[0] You said: Hello", "ada")
    assert first["cost"] > 0
    more = {"text": "And now?", "conversation_id": first["conversation_id"]}
    assert client.post("/ask", json=more).raise_for_status().json()["text"] == "[2] You said: And now?"


def test_a_reply_is_streamed(client: httpx.Client) -> None:
    with client.stream("POST", "/stream", json={"text": "Hello"}) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        assert "".join(answer.iter_text()) == "[0] You said: Hello"


@pytest.mark.parametrize("path", ["/ask", "/stream"])
@pytest.mark.parametrize(
    ("turn", "status", "code"),
    [
        ({"text": "x" * 101}, 413, "input_too_long"),
        ({"text": "Hello", "conversation_id": "conv_never_made"}, 404, "conversation_not_found"),
    ],
)
def test_an_error_is_a_problem_with_its_status(
    client: httpx.Client, path: str, turn: dict[str, str], status: int, code: str
) -> None:
    answer = client.post(path, json=turn)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json()["code"], answer.json()["status"]) == (code, status)
