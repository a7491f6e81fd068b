"""Every command, in process and against a server, over the same databases: same output, same exit codes."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from secrets import token_hex

import pytest
from tests.cli.help_page import commands
from tests.e2e.conftest import API_KEY, Service, serving
from tests.image_files import png
from tests.servers.openai import OpenAIStandIn
from typer.testing import CliRunner, Result

from textllm_adapters import wiring
from textllm_cli.main import app

Textllm = Callable[..., Result]
Way = Callable[..., Textllm]

# What is new with each call: ids, moments, links.
_NEW = re.compile(r"(conv|resp|sess|msg|key)_(t\d{10})?[0-9a-f]{24}|\d{4}-\d\d-\d\dT[0-9:.]+Z|\d{8}_\d{6}_[0-9a-f]{8}")
_LINK = re.compile(r'"(https?://[^/"]+)?/files/([^?"]+)\?[^"]+"')


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("TEXTLLM_", "OPENAI_", "DATABASE_", "S3_", "AWS_")):
            monkeypatch.delenv(name)


def ways_to(database: str, provider: OpenAIStandIn, service: Service) -> Mapping[str, Mapping[str, str]]:
    """The environments of the two ways; both keep their files in the same place."""
    here = {"OPENAI_API_KEY": API_KEY, "OPENAI_BASE_URL": provider.base_url, "DATABASE_URL": database}
    return {
        "in process": {**here, "TEXTLLM_DATA_DIR": str(service.folder / "data")},
        "remote": {"TEXTLLM_SERVER": service.url, "TEXTLLM_DATA_DIR": str(service.folder / "none")},
    }


def running(environment: Mapping[str, str], user: str) -> Textllm:
    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner(env={**environment, "TEXTLLM_USER": user}).invoke(
            app, arguments, input=stdin, obj=lambda: wiring
        )

    return run


@pytest.fixture
def way(database: str, provider: OpenAIStandIn, service: Service) -> Way:
    """`way("remote", user)` runs commands for a user there."""
    environments = ways_to(database, provider, service)
    return lambda name, user: running(environments[name], user)


@pytest.fixture
def user() -> str:
    return f"ada-{token_hex(4)}"


def masked(text: str) -> str:
    return _NEW.sub("NEW", _LINK.sub(r'"LINK to \2"', text))


def same(results: Sequence[Result]) -> Result:
    """The results of the two ways, which say the same, but for what is new with each call."""
    first, second = results
    assert (masked(first.stdout), first.exit_code) == (masked(second.stdout), second.exit_code)
    assert masked(first.stderr) == masked(re.sub(r'"instance":"[^"]+",', "", second.stderr))
    return first


def both(way: Way, user: str, *arguments: str, stdin: str | bytes | None = None) -> Result:
    """A command that changes something, for a new user of each way."""
    return same([way(name, user)(*arguments, stdin=stdin) for name in ("in process", "remote")])


def conversation_of(run: Textllm, text: str = "Name three rivers.") -> str:
    result = run("ask", text, "--json")
    assert result.exit_code == 0, result.stderr
    conversation: str = json.loads(result.stdout)["conversation_id"]
    return conversation


BYTE = "\udce9"  # of an argument that is not in UTF-8, as Python shows it
NO_TEXTS = [
    (4, ("ask", f"caf{BYTE}")),
    (4, ("ask", "x", "-s", BYTE)),
    (4, ("ask", "x", "-m", BYTE)),
    (4, ("ask", "x", "-c", BYTE)),
    (4, ("ask", f"caf{BYTE}", "--idempotency-key", "k1")),
    (4, ("ask", "x", "--idempotency-key", BYTE)),
    (4, ("ask", "x", "--idempotency-key", "é")),
    (4, ("ask", "x", "--idempotency-key", " ")),
    (3, ("conversations", "show", BYTE)),
    (4, ("conversations", "search", BYTE)),
    (3, ("files", "download", BYTE)),
    (3, ("sessions", "show", BYTE)),
    (3, ("sessions", "show", "..")),
]


def test_what_is_no_text_is_refused_alike(way: Way, user: str) -> None:
    told = {}
    for code, arguments in NO_TEXTS:
        for name in ("in process", "remote"):
            result = way(name, user)(*arguments, "--json")
            problem = json.loads(result.stderr) if isinstance(result.exception, SystemExit) else repr(result.exception)
            if result.exit_code != code or not isinstance(problem, dict) or result.stdout:
                told[name, arguments] = (result.exit_code, problem)
    assert told == {}


@pytest.mark.parametrize(
    "options",
    [
        ("--json",),
        ("--no-stream",),
        (),
        ("--stream-json",),
        ("--json", "-s", "Rhyme.", "--max-tokens", "99", "--temperature", "0.5"),
        ("--json", "-p", "document_analyst", "-m", "gpt-4o-mini"),
        ("--json", "--wait", "--idempotency-key", "k1"),
        ("--json", "--schema", "schema.json"),
        ("-x",),
    ],
    ids=" ".join,
)
def test_a_question_is_answered_alike(way: Way, options: tuple[str, ...], provider: OpenAIStandIn) -> None:
    answers = []
    Path("schema.json").write_text('{"title": "Greeting", "type": "object"}')
    for name in ("in process", "remote"):
        result = way(name, f"ada-{token_hex(4)}")("ask", "Hello, ünïcode 漢字", *options)
        result.stdout_bytes.decode()
        answers.append(re.sub(r"ada-[0-9a-f]{8}", "ada", masked(result.stdout)))
        assert result.exit_code == (4 if options == ("-x",) else 0), result.stderr
    assert answers[0] == answers[1]
    if "--schema" in options:
        asked = [request.body for request in provider.requests if request.path == "/v1/responses"][-2:]
        schema = {"type": "json_schema", "name": "Greeting", "schema": {"title": "Greeting", "type": "object"}}
        assert [body["text"] for body in asked] == [{"format": schema}] * 2


def test_turns_with_files_are_answered_alike(way: Way, user: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(png(64, 48))
    (tmp_path / 'my "notes".txt').write_text("Tea is at five.")
    options = ["-i", "cat.png", "-f", 'my "notes".txt', "-f", "-"]
    answer = both(way, user, "ask", "Compare.", "--json", *options, stdin="Cake is at six.")
    reply = json.loads(answer.stdout)
    assert (reply["image_count"], len(reply["file_urls"]), reply["text"].count("Tea is at five.")) == (1, 2, 1)
    images = both(way, user, "ask", "What is it?", "--json", "-i", "cat.png")
    assert json.loads(images.stdout)["image_count"] == 1


def test_a_conversation_goes_on_alike(way: Way, user: str) -> None:
    here, there = way("in process", user), way("remote", user)
    first = conversation_of(here)
    for run, place in ((there, 2), (here, 3)):
        reply = json.loads(run("ask", "And the longest?", "--continue", "--json").stdout)
        assert (reply["conversation_id"], reply["message_number"]) == (first, place)
    assert json.loads(there("ask", "More", "-c", first[:20], "--json").stdout)["message_number"] == 4


READS = [
    ("conversations", "list", "--json"),
    ("conversations", "list"),
    ("conversations", "list", "--limit", "1", "--offset", "1", "--json"),
    ("conversations", "list", "--q", "rivers", "--json"),
    ("conversations", "search", "ünïcode", "--json"),
    ("conversations", "search", '"said about" LAKES', "--json"),
    ("conversations", "search", "lakes rivers"),
    ("conversations", "search", "漢"),
    ("conversations", "show", "ID", "--json"),
    ("conversations", "show", "ID"),
    ("conversations", "messages", "ID", "--json"),
    ("conversations", "messages", "ID", "--order", "desc", "--limit", "1"),
    ("conversations", "export", "ID"),
    ("conversations", "export", "--all"),
    ("models", "list", "--json"),
    ("models", "list"),
    ("sessions", "today", "--json"),
    ("sessions", "list", "--json"),
    ("sessions", "show", "SESSION", "--json"),
    ("usage", "--json"),
    ("usage", "--by", "model"),
    ("usage", "--by", "conversation", "--json"),
    ("usage", "--csv"),
    ("files", "list", "--json"),
    ("files", "list", "--folder", "documents"),
    ("files", "download", "FILE", "-o", "-"),
]


@pytest.mark.usefixtures("one_day")
def test_what_is_read_is_the_same_byte_for_byte(way: Way, user: str, tmp_path: Path) -> None:
    here, there = way("in process", user), way("remote", user)
    (tmp_path / "notes é.txt").write_text("Tea is at five.")
    names = {"ID": conversation_of(here)}
    there("ask", "About lakes, 漢字", "-f", "notes é.txt")
    names["SESSION"] = json.loads(here("sessions", "today", "--json").stdout)["id"]
    names["FILE"] = here("files", "upload", "notes é.txt").stdout.strip()
    for command in READS:
        arguments = [names.get(argument, argument) for argument in command]
        one, other = here(*arguments), there(*arguments)
        assert one.exit_code == other.exit_code == 0, (command, one.stderr, other.stderr)
        plain = [_LINK.sub(r'"LINK to \2"', result.stdout) for result in (one, other)]
        assert (plain[0], other.stderr) == (plain[1], one.stderr), command
    for run in (here, there):
        (tmp_path / "notes é.txt").unlink()
        assert run("files", "download", names["FILE"]).stdout == "notes é.txt\n"


@pytest.mark.usefixtures("one_day")
def test_what_changes_something_says_the_same(way: Way, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    said = []
    for name in ("in process", "remote"):
        run, told = way(name, f"ada-{token_hex(4)}"), []
        conversation = conversation_of(run)
        for arguments in (
            ("conversations", "rename", conversation, "Rivers", "--json"),
            ("conversations", "tag", conversation, "work", "geo", "--json"),
            ("conversations", "rename", conversation),
            ("conversations", "tag", conversation, "--json"),
            ("conversations", "summarize", conversation, "--json"),
            ("conversations", "delete", conversation, "--json"),
            ("conversations", "show", conversation, "--json"),
            ("conversations", "list", "--include-deleted", "--json"),
            ("conversations", "restore", conversation[:15], "--json"),
            ("conversations", "delete", conversation, "--hard"),
            ("conversations", "restore", conversation, "--json"),
            ("sessions", "end", json.loads(run("sessions", "today", "--json").stdout)["id"], "--json"),
            ("files", "upload", "a.txt", "--json"),
            ("files", "delete", run("files", "upload", "a.txt").stdout.strip(), "--json"),
            ("files", "delete", "LLM/uploads/x/y", "--json"),
        ):
            result = run(*arguments)
            instance = re.sub(r'"instance":"[^"]+",', "", result.stderr)
            told.append((arguments[:2], masked(result.stdout), masked(instance), result.exit_code))
        said.append(re.sub(r"ada-[0-9a-f]{8}", "ada", repr(told)))
    assert said[0] == said[1]
    assert [code for _, _, _, code in told] == [0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 3]


def test_what_was_exported_is_imported_alike_costs_nothing_and_goes_on(way: Way, user: str, tmp_path: Path) -> None:
    here = way("in process", user)
    conversation_of(here, "About herons, 漢字")
    here("ask", "And egrets?", "--continue")
    line = json.loads(here("conversations", "export", "--all").stdout)
    told = []
    for name in ("in process", "remote"):
        run, other = way(name, f"bob-{token_hex(4)}"), f"bob-{token_hex(4)}"
        own = line | {"id": f"conv_{token_hex(12)}", "user_id": other}
        (tmp_path / "in.jsonl").write_text(json.dumps(own) + "\n" + json.dumps(line) + "\n")
        imports = [run("conversations", "import", "in.jsonl", "--user", other, "--json") for _ in range(2)]
        assert [result.exit_code for result in imports] == [0, 0], imports[0].stderr
        assert imports[0].stdout.replace('"is_new":true', '"is_new":false') == imports[1].stdout
        first, second = (json.loads(each) for each in imports[0].stdout.splitlines())
        assert (first["id"], second["imported_from"]) == (own["id"], line["id"])
        assert second["id"] != line["id"]
        found = run("conversations", "search", "herons", "--user", other, "--json")
        assert json.loads(found.stdout)["total"] == 2
        reply = run("ask", "Which is taller?", "-c", first["id"], "--user", other, "--json")
        assert (json.loads(reply.stdout)["text"], json.loads(reply.stdout)["message_number"]) == (
            "[4] You said: Which is taller?",  # the provider was told what had been said before
            3,
        )
        assert json.loads(run("usage", "--user", other, "--json").stdout)["total_messages"] == 1
        used = run("usage", "--by", "conversation", "--user", other, "--csv").stdout
        assert [line.partition(",")[0] for line in used.splitlines()[1:]] == [first["id"]]
        results = [imports[0].stdout, found.stdout, run("conversations", "export", first["id"]).stdout]
        (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n\n{}\n")
        broken = [run("conversations", "import", "in.jsonl", *option) for option in ((), ("--json",))]
        assert [(result.exit_code, "line 3: " in result.stderr) for result in broken] == [(4, True), (4, True)]
        told.append(re.sub(r"(ada|bob)-[0-9a-f]{8}", "bob", masked("".join(results) + broken[0].stderr)))
    assert told[0] == told[1]
    assert here("audit").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ask", " "), 4),
        (("ask", "hi", "-c", "conv_unknown"), 3),
        (("ask", "hi", "--continue"), 3),
        (("ask", "hi", "-p", "pirate"), 4),
        (("ask", "hi", "-m", "gpt-unheard-of"), 4),
        (("ask", "hi", "-i", "fake.png"), 4),
        (("ask", "hi", "--user", "not a user"), 4),
        (("conversations", "show", "conv_0123"), 3),
        (("conversations", "messages", "conv_unknown"), 3),
        (("conversations", "summarize", "conv_unknown"), 3),
        (("sessions", "today"), 3),
        (("sessions", "show", "sess_unknown"), 3),
        (("files", "download", "LLM/none"), 3),
        (("files", "list", "--after", "LLM/none"), 4),
        (("usage", "--user", "not a user"), 4),
        (("conversations", "list", "--user", "ü"), 4),
        (("conversations", "search", "?!"), 4),
    ],
    ids=str,
)
def test_failures_are_the_same(way: Way, user: str, tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    (tmp_path / "fake.png").write_text("no image")
    assert both(way, user, *arguments).exit_code == code
    assert both(way, user, *arguments, "--json").exit_code == code


def test_a_server_that_is_not_there_or_is_none_is_named(way: Way, provider: OpenAIStandIn) -> None:
    for server in ("http://127.0.0.1:1", provider.base_url):
        result = running({"TEXTLLM_SERVER": server}, "ada")("conversations", "list")
        assert (result.exit_code, server in result.stderr) == (5, True)
        assert running({}, "ada")("conversations", "list", "--server", server).exit_code == 5
        assert running({}, "ada")("--server", server, "conversations", "list").exit_code == 5


def test_a_server_that_is_named_with_v1_is_to_be_named_without(service: Service) -> None:
    for command in (("ask", "hi"), ("conversations", "list")):
        result = running({"TEXTLLM_SERVER": f"{service.url}/v1"}, "ada")(*command)
        assert "Leave /v1 out of --server or TEXTLLM_SERVER" in result.stderr


@pytest.mark.parametrize(
    "command", ["audit", "db upgrade", "db current", "db check", "model fetch", "serve", "jobs run"]
)
def test_what_needs_the_database_itself_says_where_it_works(way: Way, command: str) -> None:
    result = way("remote", "ada")(*command.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"`textllm {command}` works where the server's own database is" in result.stderr


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database_without_keys(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        (tmp_path / "keys.db").write_bytes(request.getfixturevalue("migrated_sqlite_file").read_bytes())
        yield f"sqlite:///{tmp_path / 'keys.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.create_database(template=request.getfixturevalue("migrated_postgres_url"))
    yield url
    server.drop_database(url)


def test_keys_of_a_server_are_managed_with_one(
    database_without_keys: str, provider: OpenAIStandIn, tmp_path: Path
) -> None:
    database = database_without_keys
    with serving(tmp_path, provider, database, TEXTLLM_AUTH="required") as service:
        environments = ways_to(database, provider, service)
        here = running(environments["in process"], "ada")
        admin = here("keys", "create", "--role", "admin").stdout.strip()
        there = running({**environments["remote"], "TEXTLLM_API_KEY": admin}, "ada")
        made = json.loads(
            there("keys", "create", "--role", "user", "--user", "ada", "--name", "phone", "--json").stdout
        )
        assert there("keys", "list", "--json").stdout == here("keys", "list", "--json").stdout
        bound = running({**environments["remote"], "TEXTLLM_API_KEY": made["secret"]}, "ada")
        assert bound("ask", "hi").exit_code == 0
        assert bound("ask", "hi", "--user", "bob").exit_code == 3
        (tmp_path / "in.jsonl").write_text(there("conversations", "export", "--all", "--user", "ada").stdout)
        refused = bound("conversations", "import", "in.jsonl", "--user", "bob")
        assert (refused.exit_code, "import it for ada" in refused.stderr) == (3, True)
        assert bound("conversations", "import", "in.jsonl").exit_code == 0
        assert bound("keys", "list").exit_code == 9
        assert there("keys", "create", "--role", "admin", "--tenant", "acme").exit_code == 2
        assert (
            there("keys", "revoke", made["id"], "--json").stdout == here("keys", "revoke", made["id"], "--json").stdout
        )
        refused = running(environments["remote"], "ada")("ask", "hi")
        assert (refused.exit_code, "TEXTLLM_API_KEY" in refused.stderr) == (9, True)
        assert running({**environments["remote"], "TEXTLLM_API_KEY": "sk-wrong"}, "ada")("ask", "hi").exit_code == 9


@pytest.mark.parametrize("option", [(), ("--json",)], ids=str)
def test_a_chat_through_pipes_is_the_same(way: Way, option: tuple[str, ...]) -> None:
    lines = "Hello\n/imgae x\n/usage\n/history\n/model gpt-4o-mini\nMore\n"
    lines += "/open conv_000000000\n/file none.txt\n \n/new\nexit\n"
    told = []
    for name in ("in process", "remote"):
        result = way(name, f"ada-{token_hex(4)}")("chat", *option, stdin=lines)
        assert result.exit_code == 0, result.stderr
        talk = re.sub(r'"instance":"[^"]+",', "", result.stderr)
        told.append(re.sub(r"ada-[0-9a-f]{8}", "ada", masked(result.stdout + talk)))
    assert told[0] == told[1]
    assert "There is no /imgae; did you mean /image?" in told[0]


def test_settings_are_shown_and_checked_by_both(way: Way) -> None:
    shown = [json.loads(way(name, "ada")("config", "show", "--json").stdout) for name in ("in process", "remote")]
    assert shown[0].keys() == shown[1].keys()
    checked = [way(name, "ada")("config", "check", "--offline") for name in ("in process", "remote")]
    assert [each.stdout for each in checked] == 2 * ["The settings can be used.\n"]
    assert [("settings of this computer" in each.stderr) for each in checked] == [False, True]
    assert len(json.loads(way("remote", "ada")("config", "check", "--json").stdout)["notices"]) == 1


def test_no_command_is_missing_here() -> None:
    """Each is run both ways above, or says where alone it works."""
    tried, known = Path(__file__).read_text(), list(commands())
    for command in known:
        if command and not any(other[:-1] == command for other in known):
            words = '", "'.join(command)
            assert f'("{words}"' in tried or f'"{" ".join(command)}"' in tried, command


def test_both_are_well_alike(way: Way) -> None:
    told = []
    for name in ("in process", "remote"):
        result = way(name, "ada")("health", "--json")
        report = json.loads(result.stdout)
        assert (result.exit_code, report["status"]) == (0, "healthy"), result.stdout
        told.append((list(report), list(report["checks"]), report["checks"]["database"], list(report["uptime"])))
        lines = way(name, "ada")("health").stdout.splitlines()
        assert masked(lines[1]) == "timestamp: NEW"
    assert told[0] == told[1]


def test_an_engine_that_is_not_well_says_so_and_fails(tmp_path: Path) -> None:
    here = {
        "OPENAI_API_KEY": API_KEY,
        "TEXTLLM_DATA_DIR": str(tmp_path),
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
    }
    result = running(here, "ada")("health", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["status"], report["checks"]["database"]["status"]) == (8, "unhealthy", "unhealthy")


def test_jobs_are_run_where_there_is_no_server(way: Way) -> None:
    run = way("in process", "ada")
    result = run("jobs", "run", "--json")
    done = json.loads(result.stdout)
    assert (result.exit_code, {"settled", "purged_conversations", "swept_files"} <= done.keys()) == (0, True)
    assert len(run("jobs", "run").stdout.splitlines()) == len(done)


def test_a_batch_is_answered_alike_and_repeats_cost_nothing(way: Way, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"one"\n{"message": "two", "id": 2, "model": "gpt-4o"}\n{"message": " "}\n')
    told = []
    for name in ("in process", "remote"):
        run = way(name, user := f"ada-{token_hex(4)}")
        first = run("batch", "in.jsonl", "--max-cost", "1")
        assert (first.exit_code, run("batch", "in.jsonl", "--max-cost", "1").stdout) == (4, first.stdout)
        assert json.loads(run("usage", "--json").stdout)["total_messages"] == 2
        told.append(masked(re.sub(r'"instance":"[^"]+",', "", first.stdout)).replace(user, "ada"))
    assert told[0] == told[1]


def test_any_text_is_a_document_by_its_content(way: Way, user: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print('tea')\n")
    (tmp_path / "conf.yaml").write_text("tea: 5\n")
    reply = json.loads(both(way, user, "ask", "What?", "--json", "-f", "main.py", "-f", "conf.yaml").stdout)
    assert ("print('tea')" in reply["text"], "tea: 5" in reply["text"]) == (True, True)
