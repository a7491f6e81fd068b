"""Images of every kind through a real server: what the model is shown, and bombs."""

import base64
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest
from PIL import Image
from tests.adapters.test_pictures import BOMBS as BOXED_BOMBS
from tests.adapters.test_pictures import drawn, file_of, is_same
from tests.e2e.conftest import Service, serving
from tests.e2e.test_files import MB, peak_of
from tests.image_files import gif, jpeg, png, webp
from tests.servers.openai import OpenAIStandIn

pytestmark = pytest.mark.slow  # a child for each image; `test_pictures.py` asks the reader alone

BOMBS: dict[str, Callable[[], bytes]] = BOXED_BOMBS | {
    "png": lambda: file_of(Image.new("1", (10_000, 5_001)), "PNG"),
    "jpeg": lambda: jpeg(10_000, 5_001),
    "gif": lambda: gif(10_000, 5_001),
    "webp": lambda: webp(10_000, 5_001),
    "bmp": lambda: file_of(Image.new("1", (10_000, 5_001)), "BMP"),
}


@pytest.fixture(scope="module")
def lone(provider: OpenAIStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server of one worker that has taken images before."""
    folder = tmp_path_factory.mktemp("pictures")
    with serving(folder, provider, f"sqlite:///{folder}/textllm.db") as service:
        assert show(service, file_of(drawn(), "TIFF"), png(9, 9)).status_code == 200
        yield service


def show(service: Service, *images: bytes) -> httpx.Response:
    files = [("images", ("photo", image)) for image in images]
    return httpx.post(service.url + "/chat/image", data={"message": "Well?"}, files=files, timeout=60)


def test_the_model_is_shown_the_same_pixels(lone: Service, provider: OpenAIStandIn) -> None:
    images = [file_of(drawn(), kind) for kind in ("HEIF", "AVIF", "BMP", "TIFF", "PNG", "JPEG", "GIF", "WEBP")]
    answer = show(lone, *images)
    assert answer.status_code == 200, answer.text
    shown = [part for part in provider.requests[-1].body["input"][-1]["content"] if part["type"] == "input_image"]
    assert len(shown) == len(images)
    for part, image in zip(shown, images, strict=True):
        content = base64.b64decode(part["image_url"].partition(";base64,")[2])
        assert is_same(Image.open(io.BytesIO(content)), Image.open(io.BytesIO(image)))


@contextmanager
def parsers_of(worker: int) -> Iterator[list[int]]:
    """The most memory that each of its children was seen to have."""
    seen: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.01):
            for child in psutil.Process(worker).children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # it has just ended
                    seen.append(child.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        is_over.set()
        watcher.join()


@pytest.mark.parametrize("kind", BOMBS)
def test_an_image_of_more_than_fifty_megapixels_is_refused_at_flat_memory(lone: Service, kind: str) -> None:
    bomb = BOMBS[kind]()
    (worker,) = lone.workers()
    before = peak_of(worker)
    with parsers_of(worker) as seen:
        answer = show(lone, bomb)
    assert (answer.status_code, answer.json()["code"]) == (413, "file_too_large")
    assert "10000 x 5001 pixels; at most 50 megapixels" in answer.json()["detail"]
    assert peak_of(worker) - before < 2 * len(bomb) + 4 * MB
    assert max(seen, default=0) < 80 * MB
