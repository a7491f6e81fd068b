"""What `docs/adapters.md` prints runs as printed, and is held to the suite of its port."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
SAVED = r"[Ss]ave this as `([\w.]+)`[^\n]*:\n\n```python\n(.*?)```"


class Ollama(BaseHTTPRequestHandler):
    """Answers `/api/chat` as Ollama does: JSON, a line each."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert (self.path, asked["model"]) == ("/api/chat", "llama3.2")
        ends = {"done": True, "done_reason": "stop", "prompt_eval_count": 1000, "eval_count": 500}
        lines = [{"message": {"content": delta}, "done": False} for delta in ("Good ", "day.")]
        body = b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, {"message": {"content": ""}} | ends])
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is said on stderr."""


@pytest.fixture
def ollama() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Ollama) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has who did all that the page says."""
    files = dict(re.findall(SAVED, PAGE, re.DOTALL))
    assert set(files) == {
        *("ollama_llm.py", "talk.py", "test_ollama_llm.py", "test_application.py"),
        *("sqlite_blobs.py", "test_sqlite_blobs.py"),
    }
    (files["conftest.py"],) = re.findall(r"```python\n(pytest_plugins.*?)```", PAGE, re.DOTALL)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "config").mkdir()
    (settings,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "config" / "config.yaml").write_text(settings)
    return tmp_path


def run(folder: Path, *command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "TEXTLLM_DATA_DIR": str(folder / "data"), **environ}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=240)


def test_the_model_of_the_page_is_streamed_and_priced(folder: Path, ollama: str) -> None:
    ran = run(folder, sys.executable, "talk.py", OLLAMA_URL=ollama)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "Good day. (1500 tokens, 0.0003 USD)\n"


def test_the_model_of_the_page_takes_thirty_lines_and_its_adapters_pass_their_suites(folder: Path) -> None:
    stream = re.search(r"    async def stream.*?no end\.\"\)\n", (folder / "ollama_llm.py").read_text(), re.DOTALL)
    assert stream is not None
    assert len(stream[0].splitlines()) <= 30
    ran = run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert ran.returncode == 0, ran.stdout
    assert re.search(r"^\d+ passed in", ran.stdout, re.MULTILINE)


def test_a_model_that_breaks_its_promise_fails_the_suite(folder: Path) -> None:
    model = folder / "ollama_llm.py"
    model.write_text(model.read_text().replace('"Ollama is busy.", may_have_run=False', '"Ollama is busy."'))
    ran = run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_ollama_llm.py")
    assert ran.returncode == 1
    assert "assert not True" in ran.stdout  # the comparison itself, since the suites' asserts are rewritten
    assert re.search(r"^1 failed, \d+ passed", ran.stdout, re.MULTILINE)
