"""An S3 for tests: moto in a process of its own, which ends with the one that started it.

It keeps everything in memory and looks at no signature. It can be told to fail, to be silent, and to be gone.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, Self

from textllm_adapters.s3.blob_store import S3BlobStore, open_blob_store

ACCESS_KEY, SECRET_KEY, REGION = "test", "secret-of-tests", "us-east-1"


class BucketServer(Protocol):
    """What it takes to open a bucket of a server."""

    url: str
    access_key: str
    secret_key: str
    region: str


def open_bucket(
    server: BucketServer, bucket: str, *, secret_key: str | None = None, timeout_s: float = 10.0
) -> AbstractAsyncContextManager[S3BlobStore]:
    """The store in a bucket of `server`; its sweeps go through `LLM/`."""
    return open_blob_store(
        bucket=bucket,
        prefix="LLM/",
        region=server.region,
        endpoint=server.url,
        access_key=server.access_key,
        secret_key=secret_key or server.secret_key,
        timeout_s=timeout_s,
    )


class S3Server:
    """A server on a loopback port of its own.

    with S3Server() as server:
        bucket = server.create_bucket()
    """

    def __init__(self) -> None:
        self.access_key, self.secret_key, self.region = ACCESS_KEY, SECRET_KEY, REGION

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C at the terminal is for us
        )
        self.url = f"http://127.0.0.1:{self._answer()}"
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.communicate()  # closes its stdin, which ends it

    def create_bucket(self) -> str:
        """An empty bucket with a name of its own."""
        return self._tell("bucket", f"test-{secrets.token_hex(8)}")

    def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket and all that it holds."""
        self._tell("forget", bucket)

    def fail(self, status: int, *, times: int = 1_000_000, method: str = "", after: bool = False) -> None:
        """Answer the next requests, or those of one method, with a status; `after` their work was done."""
        self._tell("fail", status, times, method, after)

    def answer(
        self, status: int, body: str = "", *, method: str = "", query: str = "", repeat: int = 1, pause_s: float = 0
    ) -> None:
        """Answer requests of a method, with `query` in their address, with a body of so many repeats of `body`."""
        self._tell("answer", status, method, query, body, repeat, pause_s)

    def be_silent(self) -> None:
        """Take requests from now on, and answer none."""
        self._tell("fail", 0, 1_000_000, "", False)

    def break_off(self, method: str) -> None:
        """Break the connection in the middle of the next answer to that method."""
        self._tell("fail", -1, 1, method, True)

    def recover(self) -> None:
        """Answer again."""
        self._tell("fail", 0, 0, "", False)

    def stop(self) -> None:
        """Close the port and all connections; what is stored stays."""
        self._tell("stop")

    def start(self) -> None:
        """Open the port again; one that is open is left as it is."""
        self._tell("start")

    def _tell(self, *command: object) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        if not answer:
            raise RuntimeError("the S3 server of the tests has died")
        return answer


class _Faults:
    """A WSGI application around another, which fails as told."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self.set(0, 0, "", False)

    def set(
        self,
        status: int,
        times: int,
        method: str,
        after: bool,
        query: str = "",
        body: tuple[str, int, float] | None = None,
    ) -> None:
        with self._lock:
            self._status, self._times, self._method, self._after = status, times, method, after
            self._query, self._body = query, body
            self._changed.set()  # who was silent goes on
            self._changed = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        with self._lock:
            is_meant = self._method in {"", environ["REQUEST_METHOD"]} and self._query in environ["QUERY_STRING"]
            is_faulty = self._times > 0 and is_meant
            self._times -= is_faulty
            status, after, changed, body = self._status, self._after, self._changed, self._body
        if not is_faulty:
            return self._application(environ, start_response)
        if not after:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if status == 0:
            changed.wait(60)
        if status == -1:
            return self._half(environ, start_response)
        if after:
            list(self._application(environ, lambda *_: None))
        if body is not None:
            return self._told(status, body, start_response)
        start_response(f"{status or 500} Told", [("Content-Length", "0")])
        return [b""]

    def _told(
        self, status: int, body: tuple[str, int, float], start_response: Callable[..., object]
    ) -> Iterable[bytes]:
        piece, repeat, pause_s = body[0].encode(), body[1], body[2]
        start_response(f"{status} Told", [("Content-Length", str(len(piece) * repeat))])
        for _ in range(repeat):
            time.sleep(pause_s)
            yield piece

    def _half(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        whole = b"".join(self._application(environ, start_response))
        yield whole[: len(whole) // 2]
        raise ConnectionResetError


def _serve() -> None:
    """Listen, say the port, and do what stdin says until it ends."""
    import socket

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

    open_connections: set[socket.socket] = set()

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            open_connections.add(self.connection)

        def finish(self) -> None:
            open_connections.discard(self.connection)
            super().finish()

        def log(self, *_: object) -> None:
            pass

    faults = _Faults(DomainDispatcherApplication(create_backend_app))

    def listen(port: int) -> BaseWSGIServer:
        server = make_server("127.0.0.1", port, faults, threaded=True, request_handler=Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    server, is_open = listen(0), True
    port = server.port
    backend = s3_backends["123456789012"]["aws"]
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        answer = "done"
        if command == "bucket":
            answer = backend.create_bucket(arguments[0], REGION).name
        elif command == "forget":
            backend.buckets[arguments[0]].keys.clear()
            backend.delete_bucket(arguments[0])
        elif command == "fail":
            faults.set(*arguments)
        elif command == "answer":
            status, method, query, *body = arguments
            faults.set(status, 1_000_000, method, False, query, tuple(body))
        elif command == "stop":
            server.shutdown()
            server.server_close()
            is_open = False
            for connection in list(open_connections):
                connection.shutdown(socket.SHUT_RDWR)
        elif command == "start" and not is_open:
            server, is_open = listen(port), True
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    os._exit(0)  # threads may still be silent


if __name__ == "__main__":
    _serve()
