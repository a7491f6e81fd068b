"""What every tracer keeps of the port `Tracer`."""

import asyncio

import pytest

from textllm_core.errors import ProviderError
from textllm_core.ports.tracer import Tracer
from textllm_core.steps import Admitting, Asking, Serving, Settling, Step

STEPS: dict[str, Step] = {
    "a request": Serving("POST", [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]),
    "a strange request": Serving(
        "other", [(b"traceparent", b"\xff" * 9000), (b"traceparent", b""), (b"baggage", b"=")]
    ),
    "an admission": Admitting("text"),
    "a call": Asking("\ud800\n\x1b" * 1000),
    "a settlement": Settling("resp_1"),
}


class TracerContract:
    """What every tracer keeps of the port `Tracer`.

    Fixture `tracer`: one of them; nothing is followed yet.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
    async def test_a_step_changes_nothing_for_whoever_does_the_work(self, tracer: Tracer, step: Step) -> None:
        async def work() -> int:
            with tracer.span(step):
                await asyncio.sleep(0)
                with tracer.span(step):
                    return 1

        assert list(await asyncio.gather(work(), work())) == [1, 1]

    @pytest.mark.parametrize("error", [ProviderError("x"), ValueError("x"), asyncio.CancelledError()], ids=repr)
    async def test_what_a_step_raises_passes(self, tracer: Tracer, error: BaseException) -> None:
        with pytest.raises(type(error)) as raised, tracer.span(Asking("m")):
            raise error
        assert raised.value is error

    async def test_where_nothing_is_followed_other_services_are_told_nothing(self, tracer: Tracer) -> None:
        assert tracer.outgoing() == {}
        with tracer.span(Asking("m")):
            pass
        assert tracer.outgoing() == {}
