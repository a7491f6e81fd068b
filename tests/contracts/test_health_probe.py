"""What every health probe keeps of the port `HealthProbe`."""

from tests.contracts.conftest import Probing


async def test_what_works_has_no_complaint(probing: Probing) -> None:
    assert await probing.working.check() is None


async def test_what_is_broken_is_said_in_a_sentence_and_not_raised(probing: Probing) -> None:
    said = await probing.broken.check()
    assert said is not None
    assert said.endswith(".")
    assert "secret" not in said


async def test_it_is_named_as_the_report_names_it(probing: Probing) -> None:
    assert probing.working.name == probing.broken.name == probing.name
