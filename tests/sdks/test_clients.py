"""Clients of OpenAI's API speak to a server over a socket, as their users have them do, and the books balance."""

import base64
import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.sdks.conftest import NODE, PYTHON, SCRIPTS, Served, run

pytestmark = [pytest.mark.sdks, pytest.mark.timeout(900)]
# What llmprobe asks for and the API of the provider behind cannot do; it is refused, or met as far as it goes.
OF_THE_RESPONSES_API = {"chat-limits-max-tokens", "responses-limits-max-tokens"}  # it takes no fewer than 16
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


@pytest.fixture(autouse=True)
async def balanced(served: Served) -> AsyncIterator[None]:
    yield
    assert await served.books.drifts() == []


@pytest.mark.parametrize("part", ["models", "files", "chat", "responses", "conversations", "errors"])
def test_openai_node(served: Served, node: Path, part: str) -> None:
    assert run(["node", node / "openai_node.mjs", part], served.environment()) == f"{part} ok\n"


@pytest.mark.parametrize("provider", ["chat", "responses", "compatible", "open_responses"])
def test_ai_sdk(served: Served, node: Path, provider: str) -> None:
    assert run(["node", node / "ai_sdk.mjs", provider], served.environment()) == f"{provider} ok\n"


@pytest.mark.parametrize("api", ["chat", "responses", "conversations"])
def test_an_agent_with_two_tools_and_a_session(served: Served, python: Path, api: str) -> None:
    said = run([python / "python", SCRIPTS / "agents_with_tools.py", api], served.environment())
    assert said == f"{api} ok\n"


@pytest.mark.parametrize("api", ["responses", "conversations"])
def test_an_agent_whose_calls_of_a_server_are_approved(served: Served, python: Path, api: str) -> None:
    if served.api == "chat_completions":
        pytest.skip("this API has no tools of its own")
    said = run([python / "python", SCRIPTS / "agents_with_approvals.py", api], served.environment())
    assert said == f"{api} ok\n"


def test_ai_sdk_approves_calls_of_a_server(served: Served, node: Path) -> None:
    if served.api == "chat_completions":
        pytest.skip("this API has no tools of its own")
    assert run(["node", node / "ai_sdk_approvals.mjs"], served.environment()) == "approvals ok\n"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_langchain(served: Served, python: Path, api: str) -> None:
    said = run([python / "python", SCRIPTS / "langchain_chat.py", api], served.environment())
    assert said == f"{api} ok\n"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_pydantic_ai(served: Served, python: Path, api: str) -> None:
    said = run([python / "python", SCRIPTS / "pydantic_agent.py", api], served.environment())
    assert said == f"{api} ok\n"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_openai_agents_for_node(served: Served, node: Path, api: str) -> None:
    assert run(["node", node / "openai_agents.mjs", api], served.environment()) == f"{api} ok\n"


def test_llm(served: Served, python: Path, tmp_path: Path) -> None:
    [recipe] = re.findall(r"```yaml\n(# extra-openai-models.yaml.*?)```", PAGE.read_text(), re.DOTALL)
    models = recipe.replace("http://localhost:8000", served.service.url)
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    (tmp_path / "one.png").write_bytes(base64.b64decode(served.environment()["PNG"]))
    environment = served.environment(LLM_USER_PATH=str(tmp_path))

    def llm(*arguments: str) -> str:
        return run([python / "llm", "-m", "textllm", "--key", served.key, *arguments], environment, cwd=tmp_path)

    assert re.fullmatch(r"\[[01]\] You said: Hello\n", llm("Hello"))
    assert re.fullmatch(r"\[[23]\] You said: And now\?\n", llm("-c", "--no-stream", "And now?"))
    assert llm("-s", "Be brief.", "-o", "max_tokens", "9", "-o", "temperature", "0.5", "Hi").startswith("word word")
    assert json.loads(llm("--schema", "name, length_km int", "A river?")) == {"name": "Paris", "length_km": 2}
    assert re.search(r"Look Seen: [0-9a-f]{8}", llm("-a", "one.png", "Look"))
    function = "def get_weather(city: str) -> str: return 'rain'"
    assert llm("--functions", function, "What is the weather?") == "The results are: rain.\n"


def test_llmprobe_finds_all_that_must_be_in_what_is_served(served: Served, node: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = ["npx", "llmprobe", served.service.url, "-m", "gpt-4o", "-k", served.key]
    settings = ["--no-bench", "--no-save", "--no-color", "--json", "--save", str(report)]
    environment = served.environment(HOME=str(tmp_path))
    subprocess.run([*command, *settings], env=environment, cwd=node, capture_output=True, timeout=600, check=False)
    found = json.loads(report.read_text())["conformance"]
    failed = {result["id"]: result["failures"] for result in found["results"] if result["outcome"] == "fail"}
    allowed = set() if served.api == "chat_completions" else OF_THE_RESPONSES_API
    assert {name: why for name, why in failed.items() if name not in allowed} == {}
    assert found["total"] > 60


def test_the_page_names_the_versions_that_are_tried() -> None:
    page = PAGE.read_text()
    for name, version in (NODE | PYTHON).items():
        assert name == "zod" or f"`{name.partition('[')[0]}` {version}" in page, name
