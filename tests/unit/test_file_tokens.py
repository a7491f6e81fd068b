"""Bounds of the tokens that files make, against what providers say they count."""

from math import ceil, floor, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textllm_core.file_tokens import dearest_reader, image_tokens, pdf_tokens

SIDES = st.integers(1, 50_000)


def tiled(width: int, height: int, base: int, tile: int) -> int:
    """The provider's own rule: fit into 2048 x 2048, then the shorter side to 768, then count tiles of 512."""
    fit = min(1.0, 2048 / max(width, height))
    width, height = max(1, floor(width * fit)), max(1, floor(height * fit))
    shrink = min(1.0, 768 / min(width, height))
    return base + tile * ceil(floor(width * shrink) / 512) * ceil(floor(height * shrink) / 512)


def patched(width: int, height: int, most: int, factor: float) -> int:
    """The provider's own rule: patches of 32 pixels, after shrinking the image until no more than `most` cover it."""
    count = ceil(width / 32) * ceil(height / 32)
    if count > most:
        shrink = sqrt(32 * 32 * most / (width * height))
        count = min(most, ceil(width * shrink / 32) * ceil(height * shrink / 32))
    return ceil(count * factor)


@given(width=SIDES, height=SIDES)
def test_no_model_counts_more_for_an_image_than_the_bound(width: int, height: int) -> None:
    counts = [
        *(tiled(width, height, base, tile) for base, tile in ((85, 170), (75, 150), (70, 140), (65, 129))),
        *(patched(width, height, most, 1.0) for most in (1_536, 2_500, 10_000)),
        *(patched(width, height, 1_536, factor) for factor in (1.62, 1.72, 2.46)),
    ]
    assert max(counts) <= image_tokens(width, height, model="gpt-5.6-luna").most


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini:acme::1"])
@given(width=SIDES, height=SIDES)
def test_the_model_that_asks_much_more_for_images_has_a_bound_of_its_own(model: str, width: int, height: int) -> None:
    assert tiled(width, height, 2_833, 5_667) <= image_tokens(width, height, model=model).most


@given(width=SIDES, height=SIDES)
def test_an_estimate_is_above_zero_and_below_the_bound(width: int, height: int) -> None:
    tokens = image_tokens(width, height, model="gpt-4o")
    assert 0 < tokens.about <= tokens.most


def test_bounds_of_usual_images_leave_room_in_a_budget() -> None:
    assert image_tokens(1024, 1024, model="gpt-4o").most < 3_000
    assert image_tokens(100_000, 500, model="gpt-4o").most <= 24_600


@given(pages=st.integers(1, 1000), size=st.integers(100, 50_000_000))
def test_the_bound_of_a_document_grows_with_its_pages(pages: int, size: int) -> None:
    one, more = (pdf_tokens(pages=n, size=size, model="gpt-4o") for n in (pages, pages + 1))
    assert pages * patched(2048, 2048, 2_500, 2.46) <= one.most < more.most
    assert one.about <= one.most
    assert pdf_tokens(pages=pages, size=size, model="gpt-4o-mini").most > one.most


def test_text_of_a_document_that_was_counted_bounds_its_tokens() -> None:
    blank = pdf_tokens(pages=2, size=9_000, model="gpt-4o", text_bytes=0, is_text_counted=True)
    dense = pdf_tokens(pages=2, size=9_000, model="gpt-4o", text_bytes=500_000, is_text_counted=True)
    assert dense.most - blank.most == 500_000
    assert blank.about < dense.about == 125_000 <= dense.most


@pytest.mark.parametrize(("text_bytes", "size", "bound"), [(0, 9_000, 8_000), (0, 700, 700), (10_000, 9_000, 10_000)])
def test_text_that_could_not_all_be_counted_is_at_least_what_a_page_may_have(
    text_bytes: int, size: int, bound: int
) -> None:
    blank = pdf_tokens(pages=2, size=size, model="gpt-4o", is_text_counted=True)
    assert pdf_tokens(pages=2, size=size, model="gpt-4o", text_bytes=text_bytes).most - blank.most == bound


def test_of_several_models_the_one_counts_that_makes_the_most_of_files() -> None:
    models = ["azure/gpt-5", "groq/llama", "openai/gpt-4o-mini"]
    assert dearest_reader(models) == "openai/gpt-4o-mini"
    assert dearest_reader(models[:2]) == "azure/gpt-5"
    for width, height in [(1, 1), (64, 64), (512, 2048), (9000, 9000)]:
        dearest = image_tokens(width, height, model=dearest_reader(models)).most
        assert all(image_tokens(width, height, model=model).most <= dearest for model in models)
