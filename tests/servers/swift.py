"""OpenStack Swift with its S3 API, for tests: a production object store on disk, which checks every signature.

It needs an environment of its own, once, since it brings old releases of what others use too:

    python3 -m venv DIRECTORY && DIRECTORY/bin/pip install swift==2.38.3 setuptools
    TEXTLLM_TEST_SWIFT=DIRECTORY pytest -m swift
"""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import botocore.session
from botocore.config import Config

START_TIMEOUT_S = 60
CACHE = Path(__file__).with_name("swift_cache.py")
STORES = ("account", "container", "object")

# Starts what its arguments name and, when its stdin ends, however that came about, stops it.
GUARD = """
servers=
for server in account container object proxy; do
    "$1/swift-$server-server" "$2/etc/$server.conf" >"$2/$server.log" 2>&1 </dev/null &
    servers="$servers $!"
done
read -r _
kill $servers
wait
rm -rf "$2"
"""

COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}/etc
log_level = WARNING
"""
STORE = """devices = {folder}/srv
mount_check = false
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
recon_cache_path = {folder}/cache
"""
PROXY = """
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth slo dlo versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
paste.filter_factory = swift_cache:filter_factory
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
allow_no_owner = true
min_segment_size = 5242880
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
"""
HASHES = """
[swift-hash]
swift_hash_path_prefix = test
swift_hash_path_suffix = test
[storage-policy:0]
name = gold
default = yes
"""


class SwiftServer:
    """Four processes on loopback ports, which end with the one that started them."""

    access_key, secret_key, region = "test:tester", "testing", "us-east-1"

    def __enter__(self) -> Self:
        binaries = find_swift()
        folder = Path(tempfile.mkdtemp(prefix="textllm-swift-"))
        _require_attributes(folder)
        port = _configure(folder, binaries)
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", str(binaries), str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}/etc"},
            start_new_session=True,
        )
        self._wait_until_ready(folder)
        session = botocore.session.Session()
        session.set_credentials(self.access_key, self.secret_key)
        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
        self._client: Any = session.create_client("s3", self.region, endpoint_url=self.url, config=config)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._client.close()
        self._process.communicate()

    def create_bucket(self) -> str:
        """An empty bucket with a name of its own, until the server ends."""
        bucket = f"test-{secrets.token_hex(8)}"
        self._client.create_bucket(Bucket=bucket)
        return bucket

    def _wait_until_ready(self, folder: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/info", timeout=5).close()
            except urllib.error.HTTPError as answer:
                answer.close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    logs = "\n".join(log.read_text()[-1000:] for log in folder.glob("*.log"))
                    self._process.communicate()
                    raise RuntimeError(f"Swift did not start: {logs}") from None
                time.sleep(0.1)
            else:
                return


def find_swift() -> Path:
    """The folder of Swift's programs. Raises RuntimeError, which says what to install, when there is none."""
    installed = os.environ.get("TEXTLLM_TEST_SWIFT", "")
    binaries = Path(installed).absolute() / "bin"
    if installed and (binaries / "swift-proxy-server").is_file():
        return binaries
    raise RuntimeError(
        "no Swift found: python3 -m venv DIRECTORY && DIRECTORY/bin/pip install swift==2.38.3 setuptools; "
        "then set TEXTLLM_TEST_SWIFT=DIRECTORY"
    )


def _require_attributes(folder: Path) -> None:
    try:
        os.setxattr(folder, "user.test", b"1")
    except OSError as error:
        shutil.rmtree(folder)
        raise RuntimeError(f"Swift needs extended attributes, which {folder.parent} lacks: set TMPDIR") from error


def _configure(folder: Path, binaries: Path) -> int:
    """Write what Swift reads; returns the port of its proxy."""
    for name in ("etc", "srv/d1", "cache"):
        (folder / name).mkdir(parents=True)
    etc, user = folder / "etc", _user()
    (etc / "swift.conf").write_text(HASHES)
    shutil.copy(CACHE, etc)
    *ports, proxy_port = _free_ports(4)
    for name, port in zip(STORES, ports, strict=True):
        common = COMMON.format(port=port, user=user, folder=folder)
        (etc / f"{name}.conf").write_text(common + STORE.format(name=name, folder=folder))
        ring = [str(binaries / "swift-ring-builder"), str(etc / f"{name}.builder")]
        for step in (["create", "4", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]):
            subprocess.run([*ring, *step], check=True, capture_output=True)
    (etc / "proxy.conf").write_text(COMMON.format(port=proxy_port, user=user, folder=folder) + PROXY)
    return proxy_port


def _user() -> str:
    return subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports
