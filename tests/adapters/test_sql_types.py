"""Column types give back what they took, on both databases, and count exactly in between."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.types import Content, Id, Labels, Money, PlainText, Tags, UtcDateTime
from textllm_core.records.parts import InputText, Refusal

samples = Table(
    "samples",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("money", Money),
    Column("moment", UtcDateTime),
    Column("id", Id),
    Column("text", PlainText),
    Column("labels", Labels),
    Column("tags", Tags),
    Column("content", Content),
)


@pytest.fixture(params=["sqlite_engine", "postgres_engine"])
def database(request: pytest.FixtureRequest) -> AsyncEngine:
    """One of the databases."""
    engine: AsyncEngine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture
async def engine(database: AsyncEngine) -> AsyncEngine:
    """The database with a table of samples."""
    async with database.begin() as connection:
        await connection.run_sync(samples.metadata.create_all)
    return database


async def kept(engine: AsyncEngine, **values: Any) -> Any:
    """The first of the values as it comes back."""
    async with engine.begin() as connection:
        await connection.execute(insert(samples), values)
        return (await connection.execute(select(samples.c[next(iter(values))]))).scalar_one()


@pytest.mark.parametrize("amount", ["0", "1e-10", "-0.0000000001", "0.3", "922000000.0123456789", "5"])
async def test_money_comes_back_exactly(engine: AsyncEngine, amount: str) -> None:
    value = await kept(engine, money=Decimal(amount))
    assert value == Decimal(amount)
    assert isinstance(value, Decimal)


async def test_money_beyond_the_tenth_decimal_is_rounded_as_the_books_do(engine: AsyncEngine) -> None:
    assert await kept(engine, money=Decimal("0.00000000015")) == Decimal("2e-10")


async def test_money_adds_up_and_compares_in_the_database(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(samples), [{"money": Decimal("0.1")} for _ in range(10)])
        assert (await connection.execute(select(func.sum(samples.c.money)))).scalar_one() == Decimal(1)
        tripled = samples.c.money + samples.c.money + samples.c.money
        rows = await connection.execute(select(samples.c.number).where(tripled == Decimal("0.3")))
        assert len(rows.all()) == 10


async def test_a_moment_comes_back_in_utc_to_the_microsecond(engine: AsyncEngine) -> None:
    moment = datetime(2027, 1, 1, 3, 59, 59, 999_999, timezone(timedelta(hours=5, minutes=45)))
    value = await kept(engine, moment=moment)
    assert value == moment
    assert value.tzinfo == UTC


async def test_moments_are_compared_as_moments(engine: AsyncEngine) -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    async with engine.begin() as connection:
        await connection.execute(insert(samples), {"moment": noon})
        west = noon.astimezone(timezone(timedelta(hours=-8)))
        before = select(samples.c.number).where(samples.c.moment < west + timedelta(microseconds=1))
        assert len((await connection.execute(before)).all()) == 1
        assert (await connection.execute(select(samples.c.number).where(samples.c.moment < west))).all() == []


async def test_a_naive_time_is_refused(engine: AsyncEngine) -> None:
    with pytest.raises(StatementError, match="without a zone"):
        await kept(engine, moment=datetime(2026, 11, 23))  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize(("given", "text"), [("Grüße\n👋", "Grüße\n👋"), ("a\0b\0", "ab"), ("\ud800!", "?!")])
async def test_text_is_kept_without_what_no_database_can_hold(engine: AsyncEngine, given: str, text: str) -> None:
    assert await kept(engine, text=given) == text


async def test_an_id_that_no_database_can_hold_is_not_taken_for_another(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(samples), [{"id": "conv_"}, {"id": "conv_?x"}])
        for hostile in ("conv_\0", "\0conv_", "conv_\ud800"):
            assert (await connection.execute(select(samples.c.id).where(samples.c.id == hostile))).all() == []


@pytest.mark.parametrize("labels", [{}, {"topic": "Grüße", "": "\u2028"}, {"quotes": "\"'\\"}])
async def test_labels_come_back(engine: AsyncEngine, labels: dict[str, str]) -> None:
    assert await kept(engine, labels=labels) == labels


async def test_labels_and_tags_are_kept_without_nul(engine: AsyncEngine) -> None:
    assert await kept(engine, labels={"a\0": "b\0c"}) == {"a": "bc"}
    async with engine.begin() as connection:
        await connection.execute(insert(samples), {"tags": ("a\0b", "ü")})
        found = select(samples.c.tags).where(samples.c.tags.is_not(None))
        assert (await connection.execute(found)).scalars().all()[-1] == ("ab", "ü")


async def test_content_comes_back_with_its_nul(engine: AsyncEngine) -> None:
    content = (InputText("a\0b"), Refusal("no \\u0000"))
    assert await kept(engine, content=content) == content


@pytest.mark.parametrize("name", ["money", "moment", "id", "text", "labels", "content"])
async def test_nothing_stays_nothing(engine: AsyncEngine, name: str) -> None:
    assert await kept(engine, **{name: None}) is None
    async with engine.connect() as connection:
        null = select(samples.c.number).where(samples.c[name].is_(None))
        assert len((await connection.execute(null)).all()) == 1
