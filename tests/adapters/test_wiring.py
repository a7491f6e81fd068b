"""What the composition root says about settings that cannot, or should not, be used."""

import asyncio
import json
import re
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import pytest
from openai.types.shared import chat_model
from tests.servers.embedded_model import cached_model
from tests.servers.openai import OpenAIStandIn
from tests.servers.s3 import S3Server

from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.memory.llm import ScriptedLLM
from textllm_adapters.openai.lifetimes import SHUTDOWNS
from textllm_adapters.settings import load_settings
from textllm_adapters.wiring import config_in_force, database_revision, notices, open_textllm, upgrade_database
from textllm_adapters.wiring.models import pricing_of
from textllm_core import Caller, DocumentTurn, Ports, TextTurn, TurnOptions, Upload
from textllm_core.application import Adapters
from textllm_core.errors import (
    ConfigurationError,
    InvalidRequestError,
    ServiceUnavailableError,
    StorageUnavailableError,
)


def settings_of(folder: Path, **environment: str):  # type: ignore[no-untyped-def]
    return load_settings(
        environ={"TEXTLLM_DATA_DIR": str(folder), "OPENAI_API_KEY": "sk-test"} | environment, cwd=folder
    )


async def refusal_of(settings) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError) as refused:
        async with open_textllm(settings):
            raise AssertionError("it opened")
    return str(refused.value)


async def test_a_model_without_a_price_is_refused_at_the_start(tmp_path: Path) -> None:
    assert "prices" in await refusal_of(settings_of(tmp_path, TEXTLLM_MODEL="gpt-unheard-of"))


async def test_a_model_without_a_price_may_be_declared_free(tmp_path: Path) -> None:
    with OpenAIStandIn(api_key="sk-test") as provider:
        settings = settings_of(
            tmp_path, TEXTLLM_MODEL="gpt-unheard-of", TEXTLLM_UNPRICED="free", OPENAI_BASE_URL=provider.base_url
        )
        async with open_textllm(settings) as textllm:
            assert (await textllm.send_message(Caller(), TextTurn("hi"))).cost == 0


@pytest.mark.parametrize("llm_api", ["conversations", "responses", "chat_completions"])
async def test_the_seeds_pricing_overrides_that_of_the_configured_model(tmp_path: Path, llm_api: str) -> None:
    with OpenAIStandIn(api_key="sk-test") as provider:
        settings = settings_of(
            tmp_path,
            TEXTLLM_LLM_API=llm_api,
            TEXTLLM_PRICING__INPUT_PER_1K="1",
            TEXTLLM_PRICING__OUTPUT_PER_1K="0.01",
            TEXTLLM_COST_LIMIT_PER_SESSION="1000",
            OPENAI_BASE_URL=provider.base_url,
        )
        async with open_textllm(settings) as textllm:
            first = await textllm.send_message(Caller(), TextTurn("hi"))
            second = await textllm.send_message(Caller(), TextTurn("again", first.conversation_id))
    assert first.cost == first.usage.input * Decimal("0.001") + first.usage.output * Decimal("0.00001")
    assert second.message_number == 2
    assert second.usage.input > first.usage.input + first.usage.output


async def test_without_a_key_and_without_a_runtime_both_ways_out_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    text = await refusal_of(load_settings(environ={"TEXTLLM_DATA_DIR": str(tmp_path)}, cwd=tmp_path))
    assert "OPENAI_API_KEY" in text
    assert "--extra local" in text


async def test_without_the_extra_for_s3_what_to_install_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "--extra s3" in await refusal_of(settings_of(tmp_path, S3_ENABLED="true", S3_BUCKET="files"))


async def test_files_go_to_the_bucket_that_the_settings_name(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.create_bucket()
    settings = settings_of(
        tmp_path,
        S3_ENABLED="true",
        S3_BUCKET=bucket,
        S3_ENDPOINT=s3_server.url,
        AWS_ACCESS_KEY_ID=s3_server.access_key,
        AWS_SECRET_ACCESS_KEY=s3_server.secret_key,
    )
    async with open_textllm(settings) as textllm:
        assert (await textllm.check_health())["storage"] is None
        s3_server.delete_bucket(bucket)
        assert (await textllm.check_health())["storage"] == "The file storage answers with status 404."
    assert bucket in await refusal_of(settings)
    assert not (tmp_path / "files").exists()


async def test_the_embedded_model_is_free_unless_the_operator_states_its_price(tmp_path: Path) -> None:
    model = await asyncio.to_thread(cached_model)
    (tmp_path / "priced.yaml").write_text(f"prices: {{{model.stem}: {{input: 1000, output: 2000}}}}")
    costs = {}
    for config in ("", str(tmp_path / "priced.yaml")):
        environment = {"TEXTLLM_DATA_DIR": str(tmp_path), "TEXTLLM_LOCAL_MODEL": str(model), "TEXTLLM_CONFIG": config}
        settings = load_settings(environ={name: value for name, value in environment.items() if value}, cwd=tmp_path)
        async with open_textllm(settings) as textllm:
            options = TurnOptions(max_output_tokens=16)
            reply = await textllm.send_message(Caller(), TextTurn("Say hi.", options=options))
        costs[config] = (reply.cost, reply.usage)
    assert costs[""][0] == 0
    cost, usage = costs[str(tmp_path / "priced.yaml")]
    assert cost == (usage.input * Decimal(1000) + usage.output * Decimal(2000)) / 1_000_000


@pytest.mark.parametrize(
    ("environ", "config", "model"),
    [
        ({}, {}, "SmolLM2"),
        ({"TEXTLLM_LOCAL_MODEL": "/models/qwen.gguf"}, {}, "qwen"),
        ({}, {"model": "gpt-4o"}, "SmolLM2"),
        ({"OPENAI_API_KEY": "sk-test"}, {}, "gpt-4o"),
        ({}, {"model": "m", "models": {"m": {"provider": "own"}}, "providers": {"own": {"kind": "embedded"}}}, "m"),
    ],
)
async def test_the_settings_in_force_name_the_model_that_answers(
    tmp_path: Path, environ: dict[str, str], config: dict[str, Any], model: str
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    settings = load_settings(
        environ=environ | {"TEXTLLM_DATA_DIR": str(tmp_path), "TEXTLLM_CONFIG": str(tmp_path / "config.yaml")},
        cwd=tmp_path,
    )
    assert str((await config_in_force(settings))["model"]).startswith(model)


def test_of_another_than_the_embedded_model_it_is_told_who_answers_and_no_price_asked(tmp_path: Path) -> None:
    environment = {"TEXTLLM_DATA_DIR": str(tmp_path), "TEXTLLM_UNPRICED": "free"}
    pricing = pricing_of(load_settings(environ=environment, cwd=tmp_path), "SmolLM2")
    assert pricing.price("SmolLM2").rates.output == 0
    with pytest.raises(
        InvalidRequestError, match="the embedded model alone answers, SmolLM2; leave model out"
    ) as refused:
        pricing.price("gpt-4o")
    assert "price" not in str(refused.value)


async def test_a_database_without_tables_says_what_to_run(tmp_path: Path, empty_postgres_url: str) -> None:
    settings = settings_of(tmp_path, DATABASE_URL=empty_postgres_url)
    assert "textllm db upgrade" in await refusal_of(settings)
    head = await upgrade_database(settings)
    assert await database_revision(settings) == (head, head)
    async with open_textllm(settings) as textllm:
        assert await textllm.check_health() == {"database": None, "storage": None}


async def test_a_database_that_does_not_answer_is_storage_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailableError):
        async with open_textllm(settings_of(tmp_path, DATABASE_URL="postgresql://127.0.0.1:1/nowhere")):
            raise AssertionError("it opened")


@pytest.mark.parametrize(
    ("model", "base_url", "today", "words"),
    [
        ("gpt-4o", "", "2026-11-29", "OpenAI shuts gpt-4o down on 2027-01-14"),
        ("gpt-4o", "", "2027-01-14", "OpenAI shuts gpt-4o down on 2027-01-14"),
        ("gpt-4o", "", "2027-01-15", "OpenAI shut gpt-4o down on 2027-01-14: it answers no more"),
        ("gpt-4o", "https://api.openai.com/v1", "2026-11-29", "2027-01-14"),
        ("gpt-4o", "https://eu.api.openai.com/v1/", "2026-11-29", "2027-01-14"),
        ("gpt-4o", "https://llm.example/v1", "2026-11-29", None),
        ("gpt-4o", "https://notapi.openai.com.example/v1", "2026-11-29", None),
        ("gpt-4o-2024-05-13", "", "2026-11-29", "OpenAI shut gpt-4o-2024-05-13 down on 2026-10-23"),
        ("gpt-4o-2024-11-20", "", "2026-11-29", "OpenAI shuts gpt-4o-2024-11-20 down on 2027-01-14"),
        ("gpt-4o-2025-12-31", "", "2026-11-29", "2027-01-14"),  # a snapshot that is not listed
        ("gpt-3.5-turbo-9999", "", "2026-11-29", "2026-10-23"),
        ("o1-preview", "", "2026-11-29", "OpenAI shut o1-preview down on 2025-07-28"),
        ("chatgpt-4o-latest", "", "2026-11-29", "OpenAI shut chatgpt-4o-latest down on 2026-02-17"),
        ("gpt-4o-mini-tts", "", "2026-11-29", None),  # another model, whose name begins alike
    ],
)
def test_the_day_a_model_is_shut_down_is_told_in_time_and_afterwards(
    tmp_path: Path, model: str, base_url: str, today: str, words: str | None
) -> None:
    settings = settings_of(tmp_path, TEXTLLM_MODEL=model, OPENAI_BASE_URL=base_url)
    told = notices(settings, today=date.fromisoformat(today))
    assert len(told) == (words is not None)
    assert all((words or "") in notice for notice in told)


PROVIDERS = """
providers:
  main: {kind: openai, api_key: "${KEY}"}
  other: {kind: chat_completions, base_url: "https://llm.example/v1"}
  cloud: {kind: azure, base_url: "https://a.openai.azure.com", api_key: "${KEY}"}
"""
MODELS = """
model: quick
models:
  quick: {provider: main, model: o1-mini, fallbacks: [gpt-4o]}
  gpt-4o: {provider: main}
  theirs: {provider: other, model: o1-mini, price: {input: 1, output: 1}}
  ours: {provider: cloud, model: gpt-4o}
  both: {weights: {quick: 1, gpt-4o: 1}}
"""


@pytest.mark.parametrize(
    ("file", "days"),
    [
        (
            PROVIDERS + MODELS,
            [
                "OpenAI shut o1-mini down on 2025-10-27: it answers no more. Choose another `models.quick.model`.",
                "OpenAI shuts gpt-4o down on 2027-01-14; choose another `models.gpt-4o.model` in time.",
            ],
        ),
        (PROVIDERS + "model: gpt-4o", ["OpenAI shuts gpt-4o down on 2027-01-14; choose another `model` in time."]),
        (PROVIDERS + "model: main/gpt-4o", ["OpenAI shuts gpt-4o down on 2027-01-14; choose another `model` in time."]),
        (PROVIDERS + "model: other/gpt-4o", []),
        (PROVIDERS + "model: cloud/gpt-4o", []),
    ],
)
def test_the_day_is_told_of_every_model_that_openai_is_asked_for(tmp_path: Path, file: str, days: list[str]) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(file)
    assert list(notices(settings_of(tmp_path, KEY="sk-test"), today=date(2026, 11, 29))) == days


def test_the_days_are_those_that_the_installed_sdk_names() -> None:
    listed = Path(chat_model.__file__).read_text(encoding="utf-8").partition("Deprecated values:")[2]
    paragraphs = [" ".join(paragraph.split()) for paragraph in listed.split("\n- ")]
    found = {
        name: date.fromisoformat(day[1])
        for paragraph in paragraphs
        if (day := re.search(r"shutdown date: (\d{4}-\d\d-\d\d)", paragraph))
        for name in re.findall(r'"([^"]+)"', paragraph.partition("Announced")[0])
    }
    assert found == SHUTDOWNS


def test_a_model_with_a_known_end_and_the_demonstration_model_are_pointed_out(tmp_path: Path) -> None:
    assert "2027-01-14" in notices(settings_of(tmp_path))[0]
    assert notices(settings_of(tmp_path, TEXTLLM_MODEL="gpt-6-luna")) == ()
    embedded = load_settings(environ={"TEXTLLM_DATA_DIR": str(tmp_path)}, cwd=tmp_path)
    assert "demonstration" in notices(embedded)[0]


async def test_anyones_adapter_takes_the_place_of_what_the_settings_choose(tmp_path: Path) -> None:
    llm, blobs = ScriptedLLM(), MemoryBlobStore()
    settings = load_settings(
        environ={"TEXTLLM_DATA_DIR": str(tmp_path)},  # there is neither a key nor an embedded model
        cwd=tmp_path,
        model="mine",
        prices={"mine": {"input": 1_000_000, "output": 0}},
        cost_limit_per_session=1_000_000,
        s3={"enabled": True, "bucket": "none-such"},
    )
    async with open_textllm(settings, llm=llm, blobs=blobs) as textllm:
        turn = DocumentTurn("Read it.", Upload.of_bytes("a.txt", b"Once upon a time."), user_id="ada")
        reply = await textllm.chat_with_document(turn)
        assert (reply.model, reply.cost) == ("mine", Decimal(reply.usage.input))
        [file] = (await textllm.files.list(Caller(), user_id="ada", folder="documents")).files
        assert b"".join([piece async for piece in blobs.get(file.key)]) == b"Once upon a time."
    assert not (tmp_path / "files").exists()


async def test_an_own_model_must_have_a_price(tmp_path: Path) -> None:
    settings = load_settings(environ={"TEXTLLM_DATA_DIR": str(tmp_path)}, cwd=tmp_path, model="mine")
    with pytest.raises(ConfigurationError, match="no price is known for 'mine'"):
        async with open_textllm(settings, llm=ScriptedLLM()):
            raise AssertionError("it opened")


def test_every_port_can_be_given() -> None:
    assert set(Adapters.__annotations__) == {field.name for field in fields(Ports)}


async def test_on_postgresql_the_database_tells_the_time(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(hours=5)

    monkeypatch.setattr("textllm_adapters.clock.datetime", Ahead)
    environment = {"TEXTLLM_DATA_DIR": str(tmp_path), "DATABASE_URL": postgres_url.replace("+asyncpg", "")}
    async with open_textllm(load_settings(environ=environment, cwd=tmp_path), llm=ScriptedLLM()) as textllm:
        reply = await textllm.send_message("Hello")
        conversation = await textllm.conversations.get(Caller(), reply.conversation_id)
    assert abs(conversation.created_at - datetime.now(UTC)) < timedelta(seconds=30)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_after_its_block_each_call_says_that_it_is_closed(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = {"TEXTLLM_DATA_DIR": str(tmp_path)}
    if database == "postgres":
        environment["DATABASE_URL"] = request.getfixturevalue("postgres_url").replace("+asyncpg", "")
    settings = load_settings(environ=environment, cwd=tmp_path)
    async with open_textllm(settings, llm=ScriptedLLM()) as textllm:
        reply = await textllm.send_message("Hello")
    calls = (
        lambda: textllm.send_message("Hello"),
        lambda: textllm.conversations.get(Caller(), reply.conversation_id),
        lambda: textllm.conversations.create(Caller(), user_id="ada"),
        lambda: anext(textllm.administration.audit()),
        lambda: textllm.administration.any_api_key(),
    )
    for call in calls:
        with pytest.raises(ServiceUnavailableError, match="TextLLM is closed"):
            await call()
