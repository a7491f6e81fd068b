"""`textllm serve`: what it refuses, and one real server."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.conftest import Run

PATIENCE_S = 120
SERVE = [sys.executable, "-m", "textllm_cli.main", "serve"]


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = listening.getsockname()[1]
        assert isinstance(found, int)
        return found


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_a_port_must_be_one(run: Run, port: str) -> None:
    assert run("serve", "--port", port).exit_code == 2


def test_a_port_in_use_is_refused(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        result = run("serve", "--port", str(listening.getsockname()[1]))
    assert result.exit_code == 2
    assert "Address already in use" in result.stderr
    assert "; choose another with --port" in result.stderr


def test_a_host_that_is_none_is_refused(run: Run, port: int) -> None:
    result = run("serve", "--host", "192.0.2.1", "--port", str(port))
    assert result.exit_code == 2
    assert "Cannot listen" in result.stderr


def test_bad_settings_end_it_before_it_starts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTLLM_MODEL", "two words")
    result = run("serve")
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_traces_that_cannot_be_had_end_it_before_it_starts(
    run: Run, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    result = run("serve", "--port", str(port))
    assert result.exit_code == 2
    assert "OTEL_TRACES_EXPORTER: expected otlp, console" in result.stderr


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_server_serves_until_it_is_told_to_end(tmp_path: Path, port: int) -> None:
    (tmp_path / "named.yaml").write_text("model: gpt-4o\nauth: disabled\n")
    environment = os.environ | {"OPENAI_API_KEY": "test"}
    command = [sys.executable, "-m", "textllm_cli.main", "--config", "named.yaml", "serve", "--port", str(port)]
    command += ["--grace-s", "0.1"]
    with (tmp_path / "log").open("w+") as log:
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline and server.poll() is None:
                try:
                    assert get(port, "/health/live") == 200
                    break
                except OSError:
                    time.sleep(0.05)
            second = subprocess.run([*SERVE, "--port", str(port)], env=environment, capture_output=True, check=False)
            os.killpg(server.pid, signal.SIGINT)  # as a terminal does: to its workers, too
            stdout, _ = server.communicate(timeout=PATIENCE_S)
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
    said = (tmp_path / "log").read_text()
    assert second.returncode == 2, said
    assert (server.returncode, stdout) == (0, b""), said
    assert re.search(rf"^serving on http://127\.0\.0\.1:{port}$", said, re.MULTILINE)
    assert "Traceback" not in said
