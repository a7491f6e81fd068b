"""The command line as a process, over everything real."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.e2e.conftest import TEXTLLM
from tests.servers.embedded_model import cached_model
from tests.servers.openai import OpenAIStandIn


def textllm(folder: Path, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TEXTLLM, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TEXTLLM_DATA_DIR": str(folder)} | environment,
        check=False,
    )


def test_the_embedded_model_answers_and_remembers(tmp_path: Path) -> None:
    model = {"TEXTLLM_LOCAL_MODEL": str(cached_model())}
    first = textllm(tmp_path, "ask", "What is the capital of France?", "--json", **model)
    reply = json.loads(first.stdout)
    assert (first.returncode, first.stderr, reply["cost"]) == (0, "", 0)
    assert reply["usage"]["input"] > 0 < reply["usage"]["output"]
    assert reply["text"].strip()
    second = textllm(tmp_path, "ask", "--continue", "--json", stdin="And of Italy?", **model)
    again = json.loads(second.stdout)
    assert (again["conversation_id"], again["message_number"]) == (reply["conversation_id"], 2)
    assert again["usage"]["input"] > reply["usage"]["input"] + reply["usage"]["output"]


@pytest.fixture
def openai(tmp_path: Path):  # type: ignore[no-untyped-def]
    with OpenAIStandIn(api_key="sk-test") as provider:
        yield {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": provider.base_url}


@pytest.mark.usefixtures("sqlite_url")  # with its tables, which a process would take its time for
def test_a_question_is_answered_and_continued(tmp_path: Path, openai: dict[str, str]) -> None:
    first = textllm(tmp_path, "ask", "Summarize:", stdin="a long text\n", **openai)
    assert (first.stdout, first.stderr, first.returncode) == ("[0] You said: Summarize:\n\na long text\n", "", 0)
    second = textllm(tmp_path, "ask", "--continue", "Shorter.", "--no-stream", **openai)
    assert second.stdout == "[2] You said: Shorter.\n"


def test_the_shipped_prompts_can_be_asked_with_wherever_one_stands(tmp_path: Path) -> None:
    with OpenAIStandIn(api_key="sk-test") as provider:
        environment = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": provider.base_url}
        answer = textllm(tmp_path, "ask", "-p", "document_analyst", "hi", **environment)
    assert (answer.stdout, answer.stderr, answer.returncode) == ("[0] You said: hi\n", "", 0)
    assert provider.requests[-1].body["instructions"].startswith("Answer questions about the document")


@pytest.mark.usefixtures("sqlite_url")  # with its tables, which a process would take its time for
@pytest.mark.parametrize(
    ("arguments", "environment", "code"),
    [
        (["ask", "--continue", "hi"], {}, 3),
        (["ask", "x" * 10_001], {"TEXTLLM_MAX_INPUT_LENGTH": "10000"}, 4),
        (["ask", "hi"], {"OPENAI_API_KEY": "sk-wrong"}, 7),
        (["ask", "hi"], {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, 7),
        (["ask", "hi"], {"TEXTLLM_COST_LIMIT_PER_SESSION": "0.000001"}, 6),
        (["ask", "hi"], {"DATABASE_URL": "postgresql://127.0.0.1:1/nowhere"}, 8),
        (["serve", "--port", "18765"], {"TEXTLLM_MODEL": "gpt-unheard-of"}, 2),
        (["ask", "hi"], {"TEXTLLM_MODLE": "x", "TEXTLLM_MAX_INPUT_LENGTH": "-1"}, 2),
    ],
)  # fmt: skip
def test_a_failure_has_its_exit_code_and_one_clear_text(
    tmp_path: Path, openai: dict[str, str], arguments: list[str], environment: dict[str, str], code: int
) -> None:
    result = textllm(tmp_path, *arguments, **(openai | environment))
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith(("error: ", "warning: "))
    assert "Traceback" not in result.stderr
    assert "sk-" not in result.stderr
