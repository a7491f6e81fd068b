"""What `docs/rest.md` prints runs as printed, against a server whose connections break; so do others' calls of curl."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import TEXTLLM, Service, serving
from tests.http.test_tenancy import EXPORTED, handlers
from tests.image_files import png
from tests.servers.broken_once import broken_once
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_http.app import routes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rest.md").read_text()
TOOLS, *OTHERS = ((ROOT / name).read_text() for name in ("docs/tools.md", "README.md", "docs/server.md"))
PRINTED = "http://localhost:8000"
TOKEN = "operator-token-of-32-characters."
PROGRAMS = [
    pytest.param("python", [sys.executable, "-c"]),
    pytest.param("js", ["node", "--input-type=module", "-e"], marks=pytest.mark.slow),  # it needs Node 20
]
LOST_AND_FOUND = "[0] You said: Hello\nOnce upon\n\na time.\n"


@pytest.fixture(scope="module")
def service(
    provider: OpenAIStandIn, migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("rest")
    database = shutil.copy(migrated_sqlite_file, folder)
    with serving(folder, provider, f"sqlite:///{database}", TEXTLLM_LLM_API="responses") as running:
        yield running


def block(language: str) -> str:
    (printed,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(printed)


@pytest.mark.parametrize(("language", "program"), PROGRAMS)
def test_a_stream_is_read_in_both_formats_and_read_on_after_a_lost_connection(
    service: Service, provider: OpenAIStandIn, language: str, program: list[str]
) -> None:
    assert shutil.which(program[0]), f"{program[0]} is not installed; the page's examples need it"
    asked = len(provider.requests)
    provider.script(Reply(), Reply(deltas=("Once", " upon", "\n\na", " time."), pause_s=0.3))
    with broken_once(service.url) as address:
        code = block(language).replace(PRINTED, address)
        ran = subprocess.run([*program, code], capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, LOST_AND_FOUND, "")
    assert len(provider.requests) == asked + 2


def commands(page: str) -> list[str]:
    """Every call of curl, without what is said about it; one goes on in the next line while a quote is open."""
    found, rest = [], ""
    for line in "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).splitlines():
        rest += line if rest else re.sub(r"\s+#.*", "", line)
        if rest.count("'") % 2 == 0:
            found += [rest] if rest.startswith("curl") else []
            rest = ""
    return found


def sent(command: str, server: str, variables: dict[str, str]) -> httpx.Response:
    """What a call of curl would send, and its answer: the shell's words, and the few options that the page has."""
    quoted = re.sub(r"\$(\w+)", lambda name: variables[name[1]], command)
    _, *words = shlex.split(quoted)
    method, url, content, form = "", "", None, []
    headers = {"Authorization": f"Bearer {variables['KEY']}"}  # as the page says of all calls
    while words:
        match words.pop(0):
            case "-s" | "-sN":
                pass
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d":
                given = words.pop(0)
                content = (json.dumps(dict(EXPORTED)) if given.startswith("@") else given).encode()
            case "-F":
                name, _, value = words.pop(0).partition("=")
                is_file = value.startswith("@")
                content_of_file = png(8, 8) if value.endswith(".png") else b"A report."
                form.append((name, (value[1:], content_of_file) if is_file else (None, value.encode())))
            case word:
                url = word.replace("localhost:8000", server)
    method = method or ("GET" if content is None and not form else "POST")
    return httpx.request(method, url, headers=headers, content=content, files=form or None, timeout=60)


@pytest.mark.usefixtures("one_day")
def test_every_call_of_curl_succeeds_in_the_order_of_its_page(
    provider: OpenAIStandIn, sqlite_url: str, tmp_path: Path
) -> None:
    with serving(tmp_path, provider, sqlite_url, TEXTLLM_AUTH="required", TEXTLLM_METRICS_TOKEN=TOKEN) as service:
        variables = {"json": "Content-Type: application/json", "KEY": _admin_key(service, sqlite_url)}
        variables["TEXTLLM_METRICS_TOKEN"] = TOKEN
        provider.script(Reply(calls=(("weather", '{"city": "Oslo"}'),)))
        for command in (command for page in (TOOLS, PAGE, *OTHERS) for command in commands(page)):
            answer = sent(command, service.url, variables)
            assert answer.status_code in (200, 201), (command, answer.text)
            variables |= _named(answer)


def _admin_key(service: Service, database: str) -> str:
    made = subprocess.run(
        [TEXTLLM, "keys", "create", "--role", "admin"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=service.folder,
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database,
            "TEXTLLM_DATA_DIR": str(service.folder / "data"),
        },
    )
    return made.stdout.strip()


def _named(answer: httpx.Response) -> dict[str, str]:
    """What later calls name: the newest of each."""
    named = {"RESPONSE": answer.headers.get("x-response-id", "")} if "x-response-id" in answer.headers else {}
    if not answer.headers["content-type"].startswith("application/json"):
        return named
    said = answer.json()
    found = {"CONVERSATION": said.get("conversation_id"), "SESSION": said.get("session_id")}
    found["CALL"] = said["tool_calls"][0]["id"] if "tool_calls" in said else None
    found |= {"FILE": said.get("key")} if "sha256" in said else {"KEY_ID": said.get("id") if "role" in said else None}
    return named | {name: value for name, value in found.items() if value}


def test_the_page_of_openais_api_has_every_route_below_v1() -> None:
    page = (ROOT / "docs" / "openai.md").read_text()
    shown = set()
    for row in re.findall(r"^\| .* \| (.*) \|$", page.partition("\n## ")[0], re.MULTILINE):
        methods: list[str] = []
        for word in re.findall(r"GET|POST|DELETE|/v1[\w/{}]*", row):
            if not word.startswith("/"):
                methods.append(word)
                continue
            shown |= {(method, word) for method in methods}
            methods.clear()
    known = {tuple(name.split()) for name, _ in handlers(routes()) if "/v1/" in name}
    assert shown == {(method, re.sub(r"{\w+:\w+}", "{id}", path)) for method, path in known}


def test_the_page_has_every_route() -> None:
    shown = set()
    for command in commands(PAGE):
        method = re.search(r"-X (\w+)", command) or re.search(r"()-[dF] ", command)
        path = re.search(r"localhost:8000([^ ?]*)", command)
        assert path is not None
        named = re.sub(r"'?\$\w+'?|(?<=/problems/)\w+|/users/\w+", "{}", path[1]).rstrip("'")
        shown.add((method[1] or "POST" if method else "GET", named.replace("{}/content", "{}")))
    known = {
        (method, re.sub(r"{\w+:path}", "{}", re.sub(r"(/users/)?{\w+:str}", "{}", path)))
        for method, path in (name.split() for name, _ in handlers(routes()))
        # The way to /docs, what its pages ask for, and what another page has.
        if path != "/" and not path.startswith(("/docs/assets/", "/v1/"))
    }
    assert {(method, path) for method, path in shown if not path.startswith("/v1/")} == known
