"""`textllm batch`, in this process: each line has one answer, and no more is spent than was allowed."""

import json
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run
from typer.testing import CliRunner

from textllm_adapters import wiring as remote_or_not
from textllm_adapters.memory.llm import ScriptedReply
from textllm_cli import speaking
from textllm_cli.main import app
from textllm_core.errors import ProviderError
from textllm_core.records.model import EndStatus


def write(path: Path, *lines: object) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line, parse_float=Decimal) for line in path.read_text().splitlines()]


def test_each_line_has_one_answer_in_their_order(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Tea.")
    write(
        tmp_path / "in.jsonl",
        "plain",
        {"message": "second", "id": "b", "user_id": "bob"},
        {"message": "When?", "files": ["notes.txt"]},
    )
    result = run("batch", "in.jsonl", "--concurrency", "3")
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0, result.stderr
    assert [outcome["line"] for outcome in outcomes] == [1, 2, 3]
    assert [outcome.get("id") for outcome in outcomes] == [None, "b", None]
    texts = [outcome["reply"]["text"] for outcome in outcomes]
    assert texts == ["[0] You said: plain", "[0] You said: second", "[0] You said: When?\n\nFile notes.txt:\n\nTea."]
    assert [outcome["reply"]["user_id"] for outcome in outcomes] == ["cli", "bob", "cli"]
    assert result.stderr.startswith("3 of 3 lines answered, 0 failed, 0 not asked; $")


def test_a_second_run_of_the_same_file_asks_nothing_again(run: Run, wiring: MemoryWiring, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", "one", "two", "one")
    first = run("batch", "in.jsonl")
    again = run("batch", "in.jsonl", "--resume")
    assert (again.stdout, len(wiring.store.entries)) == (first.stdout, 3)
    assert len(run("batch", "in.jsonl", "-s", "Rhyme.").stdout.splitlines()) == 3  # asked otherwise, it is another one
    assert len(wiring.store.entries) == 6
    others = [json.loads(line) for line in run("batch", "in.jsonl", "--user", "bob").stdout.splitlines()]
    assert [outcome["reply"]["user_id"] for outcome in others] == ["bob"] * 3  # so is one for somebody else


def test_a_run_goes_on_where_the_output_ends(run: Run, wiring: MemoryWiring, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *(f"question {number}" for number in range(5)))
    assert run("batch", "in.jsonl", "-o", "out.jsonl").exit_code == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out.jsonl").write_bytes(lines[0] + lines[3] + lines[4][:20])  # killed in the midst of a line
    assert run("batch", "in.jsonl", "-o", "out.jsonl").exit_code == 2
    result = run("batch", "in.jsonl", "-o", "out.jsonl", "--resume", "--json")
    assert json.loads(result.stdout)["answered"] == 5
    assert sorted(read(tmp_path / "out.jsonl"), key=lambda outcome: str(outcome["line"])) == [
        json.loads(line, parse_float=Decimal) for line in lines
    ]
    assert len(wiring.store.entries) == 5


def test_what_failed_is_told_and_asked_again_by_the_next_run(run: Run, wiring: MemoryWiring, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", "one", {"message": " "}, "three")
    broken = ScriptedReply(deltas=("par",), error=ProviderError("It broke off."), after=1)
    result = run("batch", "in.jsonl", "-o", "out.jsonl", "--concurrency", "1", says=[broken])
    assert result.exit_code == 7
    first, second, third = read(tmp_path / "out.jsonl")
    assert [list(outcome)[-1] for outcome in (first, second, third)] == ["error", "error", "reply"]
    assert isinstance(second["error"], dict)
    assert second["error"]["code"] == "invalid_request"
    result = run("batch", "in.jsonl", "-o", "out.jsonl", "--resume")
    assert (result.exit_code, result.stdout.partition(";")[0]) == (4, "2 of 3 lines answered, 1 failed, 0 not asked")
    assert sorted(str(outcome["line"]) for outcome in read(tmp_path / "out.jsonl")) == ["1", "2", "3"]


@pytest.mark.parametrize("usage_stated", [True, False])
def test_a_line_that_broke_off_says_what_it_was_charged_for(
    run: Run, wiring: MemoryWiring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usage_stated: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    write(tmp_path / "in.jsonl", "one", "two", {"message": " "})
    gone = ScriptedReply(error=ProviderError("It was never asked.", may_have_run=False))
    unheard: EndStatus | None = "failed" if usage_stated else None
    broken = ScriptedReply(deltas=("par",), error=ProviderError("It broke off."), after=1, unheard=unheard)
    result = run("batch", "in.jsonl", "--concurrency", "1", says=[broken, gone])
    charged, *free = [json.loads(line, parse_float=Decimal) for line in result.stdout.splitlines()]
    (entry,) = wiring.store.entries.values()
    assert entry.cost > 0
    assert (charged["cost"], charged["estimated"]) == (entry.cost, entry.estimated)
    assert (charged["error"]["cost"], charged["error"]["estimated"]) == (entry.cost, entry.estimated)
    assert [(line["cost"], line["estimated"]) for line in free] == [(0, False)] * 2
    assert result.stderr.splitlines()[-1].startswith("0 of 3 lines answered, 3 failed, 0 not asked; $0.00")


def test_no_more_is_spent_than_was_allowed(
    run: Run, wiring: MemoryWiring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")  # else the model is the embedded one, which is free
    write(tmp_path / "in.jsonl", *(f"question {number}" for number in range(40)))
    options = ["-o", "out.jsonl", "--max-tokens", "1000", "--concurrency", "8"]
    result = run("batch", "in.jsonl", *options, "--max-cost", "0.012")
    spent = sum(entry.cost for entry in wiring.store.entries.values())
    outcomes = read(tmp_path / "out.jsonl")
    assert (result.exit_code, "not asked" in result.stdout, "--max-cost is reached" in result.stderr) == (6, True, True)
    assert 0 < len(outcomes) < 40
    assert sum(Decimal(str(outcome["cost"])) for outcome in outcomes) == spent <= Decimal("0.012")
    more = run("batch", "in.jsonl", *options, "--max-cost", "1", "--resume")
    assert (more.exit_code, len(read(tmp_path / "out.jsonl"))) == (0, 40)
    assert len(wiring.store.entries) == 40


def test_without_a_price_a_cap_cannot_be_kept(run: Run, wiring: MemoryWiring, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", {"message": "hi", "model": "unheard-of"})
    result = run("batch", "in.jsonl", "--max-cost", "1")
    assert (result.exit_code, "'unheard-of'" in result.stderr, wiring.store.entries) == (2, True, {})
    assert run("batch", "in.jsonl", "--max-cost", "much").exit_code == 2


@pytest.mark.parametrize("line", ["{", "[1]", '{"text": "x"}', '{"message": 1}', '{"message": "x", "stream": true}'])
def test_of_a_file_with_a_wrong_line_nothing_is_asked(
    run: Run, wiring: MemoryWiring, tmp_path: Path, line: str
) -> None:
    (tmp_path / "in.jsonl").write_text(f'"fine"\n\n{line}\n')
    result = run("batch", "in.jsonl")
    assert (result.exit_code, result.stdout, wiring.store.entries) == (4, "", {})
    assert "line 3: " in result.stderr
    assert run("batch", "none.jsonl").exit_code == 2


def test_a_file_may_begin_and_end_as_windows_writes_it(run: Run, tmp_path: Path) -> None:
    questions = tmp_path / "in.jsonl"
    questions.write_bytes(b'\xef\xbb\xbf"What is tea?"\r\n"And milk?"\r\n\x1a')
    result = run("batch", str(questions))
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)


def test_questions_may_be_piped_in(run: Run) -> None:
    result = run("batch", "-", stdin='"one"\n"two"')
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)


class _Leaving(BaseHTTPRequestHandler):
    """A server that knows its models, and goes whenever it is asked to answer."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"object": "list", "data": []}')

    def do_POST(self) -> None:
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


def test_a_line_whose_server_is_lost_says_that_nobody_knows_what_it_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def pause(wait_s: float) -> None:
        waits.append(wait_s)

    monkeypatch.setattr(speaking, "pause", pause)
    write(tmp_path / "in.jsonl", "one")
    with HTTPServer(("127.0.0.1", 0), _Leaving) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TEXTLLM_SERVER", f"http://127.0.0.1:{server.server_port}")
        result = CliRunner().invoke(app, ["batch", "in.jsonl"], obj=lambda: remote_or_not)
        server.shutdown()
    (line,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, len(waits), line["cost"]) == (5, 4, None)
    assert "and what 1 of them cost, which is not known" in result.stderr
