"""Images and containers by Debian's buildah, podman and runc, without a registry.

The base image is made here by mmdebstrap, and tagged like the one that the Dockerfile names. All is in a folder that is
removed again, unless TEXTLLM_TEST_IMAGES names one: then what was built stays there, and the next run is quicker.
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
PROGRAMS = ("buildah", "podman", "runc", "mmdebstrap")  # by `apt-get install` of these names
SUBORDINATES = Path("/etc/subuid")  # who may be whom in containers without root
OWN_AUTHORITIES = Path("/usr/local/share/ca-certificates")  # of this machine's network, where it looks into TLS
DRIVER = {"STORAGE_DRIVER": "overlay"}  # which Linux lends to others than root, too; theirs would copy each layer
BUILD_TIMEOUT_S = 1800  # the image takes three minutes on two cores, most of them for the network
STOP_TIMEOUT_S = 60


def missing() -> str | None:
    """Why there can be no containers here; None where there can."""
    if lacking := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"containers need {', '.join(lacking)}: apt-get install {' '.join(PROGRAMS)}"
    user = pwd.getpwuid(os.geteuid()).pw_name
    if user != "root" and not any(line.startswith(f"{user}:") for line in SUBORDINATES.read_text().splitlines()):
        return f"containers without root need users of their own: usermod --add-subuids 100000-165535 {user}"
    return None


def base_name() -> str:
    found = re.search(r"^ARG BASE=(\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


class Container:
    """One that runs."""

    def __init__(self, images: "Images", name: str) -> None:
        self._images, self.name = images, name

    def run(self, *command: str) -> str:
        """What a command says on stdout that is run inside; AssertionError where it fails."""
        return self._images.podman("exec", self.name, *command)

    def log(self) -> str:
        return self._images.podman("logs", self.name, merged=True)

    def stop(self) -> int:
        """End it as `docker stop` does; its exit code."""
        self._images.podman("stop", "--time", str(STOP_TIMEOUT_S), self.name)
        return int(self._images.podman("inspect", "--format", "{{.State.ExitCode}}", self.name))


class Images:
    """A store of images of its own."""

    def __enter__(self) -> Self:
        kept = os.environ.get("TEXTLLM_TEST_IMAGES")
        self._is_kept = bool(kept)
        self._folder = Path(
            kept or tempfile.mkdtemp(prefix="textllm-images-", dir="/var/tmp")
        )  # gigabytes: on the disk
        self._store = ("--root", str(self._folder / "store"), "--runroot", str(self._folder / "run"))
        self._count = 0
        return self

    def __exit__(self, *_exc: object) -> None:
        for command in (("podman", "rm", "--all", "--force"), ("buildah", "rm", "--all")):
            subprocess.run([command[0], *self._store, *command[1:]], capture_output=True, check=False)
        if not self._is_kept:
            as_owner = () if os.geteuid() == 0 else ("podman", "unshare")  # of files of other users, too
            subprocess.run([*as_owner, "rm", "-rf", self._folder], check=False)

    def make_base(self) -> None:
        """Debian as in the real base, from its packages."""
        name = base_name()
        if self._buildah("images", "--quiet", "--filter", f"reference={name}"):
            return
        suite = name.rpartition(":")[2].removesuffix("-slim")
        archive = self._folder / "base.tar"
        _said("mmdebstrap", "--quiet", "--variant=minbase", suite, str(archive))
        container = self._buildah("from", "scratch").strip()
        self._buildah("add", container, str(archive), "/")
        if OWN_AUTHORITIES.is_dir() and any(OWN_AUTHORITIES.iterdir()):
            self._buildah("copy", container, str(OWN_AUTHORITIES), str(OWN_AUTHORITIES))
            self._buildah("config", "--env", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", container)
        self._buildah("commit", "--rm", container, name)
        archive.unlink()

    def build(self, name: str, dockerfile: Path, context: Path) -> None:
        """As `docker build`."""
        options = ("--format", "docker", "--isolation", "chroot", "--pull-never", "--layers")
        self._buildah("bud", *options, "--tag", name, "--file", str(dockerfile), str(context))

    def run(
        self, image: str, *command: str, folders: Mapping[Path, str] | None = None, options: Sequence[str] = ()
    ) -> str:
        """What a command says on stdout in a container of its own; AssertionError where it fails."""
        return self.podman("run", "--rm", *_AS_HERE, *options, *_mounts(folders or {}), image, *command)

    @contextmanager
    def running(
        self, image: str, *command: str, environment: Mapping[str, str], folders: Mapping[Path, str]
    ) -> Iterator[Container]:
        """A container with a read-only root and a /tmp, in this machine's network."""
        self._count += 1
        name = f"textllm-{self._count}"
        options = [*_AS_HERE, *_READ_ONLY, *_mounts(folders)]
        for variable, value in environment.items():
            options += ["--env", f"{variable}={value}"]
        self.podman("run", "--detach", "--name", name, *options, image, *command)
        try:
            yield Container(self, name)
        finally:
            self.podman("rm", "--force", name)

    def podman(self, *arguments: str, merged: bool = False) -> str:
        with_runc = ("--cgroup-manager", "cgroupfs", "--runtime", "runc")
        return _said("podman", *self._store, *with_runc, *arguments, merged=merged)

    def _buildah(self, *arguments: str) -> str:
        return _said("buildah", *self._store, *arguments)


# No more files and processes than whoever runs this may have, and no timers of systemd, which may not be there.
_AS_HERE = ("--network", "host", "--no-healthcheck", "--ulimit", "nofile=8192:8192", "--ulimit", "nproc=4096:4096")
_READ_ONLY = ("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--cap-drop", "all")


def _mounts(folders: Mapping[Path, str]) -> Sequence[str]:
    return [part for path, inside in folders.items() for part in ("--volume", f"{path}:{inside}")]


def _said(*command: str, merged: bool = False) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT_S,
        cwd="/",
        env=DRIVER | os.environ,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{(done.stderr or '')[-3000:]}"
    return done.stdout
