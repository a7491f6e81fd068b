"""Servers that are not OpenAI's, through the whole service: each turn is told for what it is, and charged for it."""

import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Books, Service, serving
from tests.image_files import png
from tests.servers.chat_charges import REQUEST_ID, TEXT, Quirk
from tests.servers.chat_quirks import QUIRKS, WITHOUT_EYES, ChatQuirks

from textllm_core.money import Rates
from textllm_core.usage import LedgerEntry

STATUS = {
    "context_too_long": 422,
    "content_refused": 422,
    "unsupported_media_type": 415,
    "provider_error": 502,
    "provider_unavailable": 503,
}
RATES = Rates.of(Decimal("2.5"), Decimal(10), cached_input=Decimal("1.25"))
PRICE = {"input": 2.5, "output": 10, "cached_input": 1.25}
RETRIED = {"rate-for-a-day", "rate-for-ages", "rate-of-gemini"}  # after pauses of their own


@pytest.fixture(scope="module")
def servers() -> Iterator[ChatQuirks]:
    with ChatQuirks() as servers:
        yield servers


@pytest.fixture(scope="module")
def database(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{shutil.copy(migrated_sqlite_file, tmp_path_factory.mktemp('quirks'))}"


@pytest.fixture(scope="module")
def service(servers: ChatQuirks, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("served")
    config = folder / "config.yaml"
    config.write_text(json.dumps({"prices": dict.fromkeys(QUIRKS, PRICE)}))
    settings = {"TEXTLLM_LLM_API": "chat_completions", "TEXTLLM_CONFIG": str(config), "TEXTLLM_MODEL": "ordinary"}
    with serving(folder, servers, database, **settings) as service:
        yield service


def ask(service: Service, model: str, **fields: str) -> httpx.Response:
    """A turn of a user of the model's name; with an image where that is what the model has no eyes for."""
    fields = {"message": "Well?", "user_id": model, "model": model} | fields
    if model in WITHOUT_EYES:
        images = [("images", ("a.png", png(64, 64)))]
        return httpx.post(f"{service.url}/chat/image", data=fields, files=images, timeout=60)
    return httpx.post(f"{service.url}/chat", json=fields, timeout=60)


def assert_told(answer: httpx.Response, quirk: Quirk) -> None:
    told = answer.json()
    if quirk.code is None:
        assert (answer.status_code, told["text"], told["finish_reason"]) == (200, quirk.text, quirk.finish)
    else:
        assert (answer.status_code, told["code"]) == (STATUS[quirk.code], quirk.code)
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)


def assert_charged(entries: list[LedgerEntry], quirk: Quirk) -> None:
    if quirk.usage is None:
        assert entries == []
        return
    [entry] = entries
    wanted = quirk.charged
    assert entry.estimated == quirk.estimated
    if wanted.input_tokens:
        assert entry.usage == wanted
    else:  # nobody but us knows what was sent
        assert entry.usage.input_tokens > 0 or not wanted.output_tokens
        assert entry.usage.output_tokens == wanted.output_tokens
    usage = entry.usage
    plain = usage.input_tokens - usage.cached_tokens
    assert entry.cost * 1_000_000 == (
        plain * RATES.input + usage.cached_tokens * Decimal("1.25") + usage.output_tokens * RATES.output
    )


@pytest.mark.parametrize("model", [model for model in QUIRKS if model not in RETRIED])
async def test_a_turn_is_told_and_charged_for_what_it_is(service: Service, books: Books, model: str) -> None:
    assert_told(ask(service, model), QUIRKS[model])
    assert_charged(await books.entries(model), QUIRKS[model])


async def test_the_books_balance_and_the_log_says_why(service: Service, books: Books) -> None:
    assert await books.drifts() == []
    assert ask(service, "sglang-too-long").status_code == 422
    assert ask(service, "half-a-chunk", user_id="log").status_code == 502
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if "a reply failed" in line]
    line = [line for line in lines if line["model"] == "sglang-too-long"][-1]
    said = {"provider_status": 400, "provider_type": "BadRequestError", "provider_request_id": REQUEST_ID}
    assert line | said == line
    broken = [line for line in lines if line["model"] == "half-a-chunk"]
    assert broken[-1]["provider_request_id"] == REQUEST_ID


@pytest.mark.parametrize(
    ("model", "text"),
    [("ends-error", TEXT), ("no-end", TEXT), ("no-text", ""), ("error-in-the-choice", "Tea is "), ("ends-eos", TEXT)],
)
def test_what_was_read_of_a_reply_stays_however_it_ended(service: Service, model: str, text: str) -> None:
    user = {"user_id": f"{model}-again"}
    ask(service, model, **user)
    [conversation] = service.get(f"/conversations?user_id={user['user_id']}").json()["data"]
    kept = service.get(f"/conversations/{conversation['id']}/messages").json()["data"]
    assert [message["text"] for message in kept] == ["Well?", text]
    assert ask(service, "ordinary", conversation_id=conversation["id"], **user).json()["message_number"] == 2


def test_nothing_that_was_sent_is_repeated(service: Service) -> None:
    answer = ask(service, "says-what-was-sent")
    assert answer.json()["code"] == "provider_error"
    assert "canary" not in answer.text + service.log.read_text()


def test_a_conversation_goes_on_in_text_after_an_image_that_the_model_cannot_see(service: Service) -> None:
    user = {"user_id": "blind"}
    first = ask(service, "ordinary", **user).json()["conversation_id"]
    refused = ask(service, "llama-cpp-blind", conversation_id=first, **user)
    assert refused.status_code == 415
    images = [("images", ("a.png", png(64, 64)))]
    shown = httpx.post(
        f"{service.url}/chat/image",
        data={"message": "Well?", "conversation_id": first, "model": "ordinary"} | user,
        files=images,
        timeout=60,
    )
    assert shown.status_code == 200
    text = {"message": "And now?", "conversation_id": first, "model": "vllm-blind"} | user
    went_on = httpx.post(f"{service.url}/chat", json=text, timeout=60)
    assert (went_on.status_code, went_on.json()["message_number"]) == (200, 3)
