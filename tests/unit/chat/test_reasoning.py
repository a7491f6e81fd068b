"""Reasoning and usage that is stated in part: how long a model is waited for, and what is charged."""

import asyncio
from contextlib import nullcontext, suppress

import pytest
from msgspec.structs import replace
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Usage
from textllm_core.errors import ProviderError, ProviderReport, ProviderTimeoutError, ProviderUnavailableError
from textllm_core.records.model import EndStatus


async def test_reasoning_that_came_is_part_of_an_estimate(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="abcd", thoughts=(30, 10), usage_stated=False))
    await bench.say("x" * 391)
    (entry,) = await bench.entries()
    assert (entry.estimated, entry.usage) == (True, Usage(input_tokens=100, output_tokens=11, reasoning_tokens=10))
    await bench.check_books()


async def test_reasoning_that_came_is_charged_also_where_the_provider_then_says_that_it_failed(bench: Bench) -> None:
    broken = ProviderUnavailableError("busy")
    broken.report = ProviderReport(status=503)
    bench.llm.script(ScriptedReply(thoughts=(40,), error=broken, after=0))
    with pytest.raises(ProviderUnavailableError):
        await bench.say("x" * 391)
    (entry,) = await bench.entries()
    assert (entry.estimated, entry.usage) == (True, Usage(input_tokens=100, output_tokens=10, reasoning_tokens=10))
    await bench.check_books()


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_what_the_provider_leaves_out_is_estimated_and_the_entry_says_so(bench: Bench, status: EndStatus) -> None:
    usage = Usage(input_tokens=0, output_tokens=70)
    bench.llm.script(ScriptedReply(text="so", usage=usage, is_estimate=True, status=status))
    with suppress(ProviderError):
        await bench.say("x" * 391)
    (entry,) = await bench.entries()
    assert (entry.estimated, entry.usage) == (True, Usage(input_tokens=100, output_tokens=70))
    await bench.check_books()


@pytest.mark.parametrize(
    ("stated", "charged"), [(Usage(70, 50, cached_tokens=60), Usage(70, 50, 60)), (Usage(70, 1), Usage(70, 10))]
)
async def test_a_reply_that_breaks_off_costs_no_less_than_was_stated_in_its_midst(
    bench: Bench, stated: Usage, charged: Usage
) -> None:
    bench.llm.script(ScriptedReply(deltas=("abcd" * 10,), counted=stated, error=ProviderError("cut"), after=1))
    with pytest.raises(ProviderError):
        await bench.say("hi")
    (entry,) = await bench.entries()
    assert (entry.estimated, entry.usage) == (True, charged)
    await bench.check_books()


@pytest.mark.parametrize(
    "endless", [{"deltas": ("abcd" * 1000,) * 1000}, {"deltas": ("abcd" * 10**6,)}, {"thoughts": (4000,) * 1000}]
)
async def test_a_reply_that_goes_far_beyond_its_longest_length_is_cut_off(
    bench: Bench, endless: dict[str, tuple[str | int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textllm_adapters.memory.llm._shortened", lambda wanted, _: wanted)  # it takes no limit
    bench.llm.script(ScriptedReply(**endless))  # type: ignore[arg-type]  # either field takes its own kind
    most = POLICY.max_output_tokens * 32 + 65536
    with pytest.raises(ProviderError, match="writes far more than max_output_tokens"):
        await bench.say("hi")
    (entry,) = await bench.entries()
    assert (entry.status, entry.estimated) == ("incomplete", True)
    assert most / 4 <= entry.usage.output_tokens <= most / 4 + 1001
    said = await bench.said(entry)
    assert len(said[-1].text) == (0 if "thoughts" in endless else entry.usage.output_tokens * 4)
    await bench.check_books()


class Hurried(asyncio.SelectorEventLoop):
    """A loop that never waits: its clock jumps to the next moment at which something is due."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead

    def _run_once(self) -> None:
        if self._scheduled and not self._ready:  # type: ignore[attr-defined]
            self.ahead += max(0.0, self._scheduled[0].when() - self.time())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@pytest.mark.parametrize(("pause_s", "is_patient"), [(50, True), (61, False)])
def test_a_model_may_reason_for_as_long_as_it_shows_life(pause_s: float, is_patient: bool) -> None:
    async def ask() -> None:
        bench = Bench(policy=replace(POLICY, first_token_timeout_s=60, silence_timeout_s=120))
        bench.llm.script(ScriptedReply(text="Tea.", thoughts=(9,) * 10, pause_s=pause_s))
        with nullcontext() if is_patient else pytest.raises(ProviderTimeoutError):
            assert (await bench.say("hi")).text == "Tea."
        await bench.check_books()

    with asyncio.Runner(loop_factory=Hurried) as runner:
        runner.run(ask())
