"""What every probe keeps of the port `HealthProbe`."""

from dataclasses import dataclass

import pytest

from textllm_core.ports.health_probe import HealthProbe


@dataclass(frozen=True, slots=True)
class Probing:
    """A probe of something that works, the same probe of something that does not, and what a report calls both."""

    working: HealthProbe
    broken: HealthProbe
    name: str = "database"


class HealthProbeContract:
    """What every probe keeps of the port `HealthProbe`.

    Fixture `probing`: a `Probing`.
    """

    pytestmark = pytest.mark.asyncio

    async def test_what_works_has_no_complaint(self, probing: Probing) -> None:
        assert await probing.working.check() is None

    async def test_what_is_broken_is_said_in_a_sentence_and_not_raised(self, probing: Probing) -> None:
        said = await probing.broken.check()
        assert said is not None
        assert said.endswith(".")
        assert "secret" not in said

    async def test_it_is_named_as_the_report_names_it(self, probing: Probing) -> None:
        assert probing.working.name == probing.broken.name == probing.name
