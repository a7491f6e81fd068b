"""Clients of OpenAI's API, each its real package in an environment of its own, and a server for them to speak to."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from tests.e2e.conftest import API_KEY, TEXTLLM, Books, Service, serving
from tests.image_files import png
from tests.sdks.clever_model import answer
from tests.servers.openai import OpenAIStandIn

SCRIPTS: Final = Path(__file__).parent / "scripts"
# What was tried last: docs/clients.md names these versions, too.
NODE: Final = {
    "openai": "6.49.0",
    "ai": "6.0.326",
    "@openai/agents": "0.20.0",
    "@ai-sdk/openai": "3.0.141",
    "@ai-sdk/openai-compatible": "2.0.92",
    "@ai-sdk/open-responses": "1.0.39",
    "llmprobe": "0.6.12",
    "zod": "4",
}
PYTHON: Final = {
    "openai-agents": "0.24.0",
    "langchain-openai": "1.7.4",
    "llm": "0.36",
    "pydantic-ai-slim[openai]": "2.38.0",
}
_PATIENCE_S: Final = 480  # of a registry, where the machine is busy


@dataclass(frozen=True, slots=True)
class Served:
    """A server that asks the clever model by one of OpenAI's APIs, and a key to it."""

    api: str
    service: Service
    books: Books
    key: str

    def environment(self, **more: str) -> dict[str, str]:
        """That of a client."""
        picture = base64.b64encode(png(8, 8)).decode()
        plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return plain | {"SERVER": self.service.url, "KEY": self.key, "USER_ID": "ada", "PNG": picture} | more


@pytest.fixture(scope="session")
def clever_provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key=API_KEY) as provider:
        provider.choose = answer
        yield provider


@pytest.fixture(scope="session", params=["conversations", "responses", "chat_completions"])
def served(
    request: pytest.FixtureRequest,
    clever_provider: OpenAIStandIn,
    migrated_sqlite_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """With each of the APIs that providers have behind it."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copy(migrated_sqlite_file, folder / "textllm.db")
    database = f"sqlite:///{folder / 'textllm.db'}"
    chosen = {"TEXTLLM_LLM_API": request.param, "TEXTLLM_AUTH": "required"}
    if request.param != "chat_completions":  # which has no such tools
        chosen["TEXTLLM_HOSTED_TOOLS"] = '{"mcp": {"price": 0.01, "allowed": ["mcp.example"]}}'
    with serving(folder, clever_provider, database, **chosen) as service:
        environment = {**os.environ, "DATABASE_URL": database, "TEXTLLM_DATA_DIR": str(folder / "data")}
        issued = run([TEXTLLM, "keys", "create", "--role", "service", "--json"], environment, cwd=folder)
        yield Served(request.param, service, Books(database), json.loads(issued)["secret"])


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of npm, and the scripts."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    wanted = [f"{name}@{version}" for name, version in NODE.items()]
    _installed(["npm", "install", "--no-audit", "--no-fund", *wanted], folder)
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the programs of an environment that has the packages of PyPI."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = [f"{name}=={version}" for name, version in PYTHON.items()]
    _installed([str(folder / "bin" / "pip"), "install", "--quiet", "--no-compile", *wanted], folder)
    return folder / "bin"


def run(command: Sequence[str | Path], environment: Mapping[str, str], *, cwd: Path | None = None) -> str:
    """What a client prints; it must end well."""
    done = subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _installed(command: Sequence[str], folder: Path) -> None:
    """Install packages, or skip where the registry or its program is out of reach."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{command[0]} cannot be run: {error}")
    if done.returncode != 0:
        pytest.skip(f"{command[0]} cannot reach its registry: {done.stderr.strip()[-300:]}")
