"""The image of the Dockerfile, and one with the tools that check the other files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deploy.containers import DOCKERFILE, ROOT, Images, base_name, missing

IMAGE, TOOLS = "localhost/textllm", "localhost/tools"
PACKAGES = "docker-compose kubernetes-client procps prometheus systemd"


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    if reason := missing():
        pytest.skip(reason)
    with Images() as images:
        images.make_base()
        yield images


@pytest.fixture(scope="session")
def image(images: Images) -> str:
    """The name of the image that the checkout makes."""
    images.build(IMAGE, DOCKERFILE, ROOT)
    return IMAGE


@pytest.fixture(scope="session")
def tools(images: Images, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an image with Debian's Docker Compose, kubectl, promtool and systemd-analyze."""
    folder: Path = tmp_path_factory.mktemp("tools")
    (folder / "Dockerfile").write_text(
        f"FROM {base_name()}\n"
        f"RUN apt-get update && apt-get install --yes --no-install-recommends {PACKAGES}\n"
        "RUN install -D /bin/true /opt/textllm/bin/textllm\n"
    )
    images.build(TOOLS, folder / "Dockerfile", folder)
    return TOOLS
