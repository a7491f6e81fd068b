"""How fast files get into S3, and what memory it takes, beside aioboto3 used plainly.

    python -m benchmarks.s3 [FILES]

Puts so many files of 20 MB at once, 50 unless said otherwise, into an S3 on loopback that keeps them in memory: first
through the adapter, then with `upload_fileobj` and `put_object` of aioboto3, each in a process of its own. Prints MB a
second, and by how much the process grew at most over what it took with one small file put.
"""

import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from benchmarks.processes import MB
from tests.servers.s3 import S3Server, open_bucket

from textllm_adapters.s3.blob_store import S3BlobStore

SIZE = 20 * MB


async def adapter(store: S3BlobStore, key: str, path: Path) -> None:
    async def content() -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(1024 * 1024):
                yield piece

    await store.put(key, content(), max_bytes=SIZE)


async def upload_fileobj(store: S3BlobStore, key: str, path: Path) -> None:
    with path.open("rb") as file:
        await store.client.upload_fileobj(file, store.bucket, key)


async def put_object(store: S3BlobStore, key: str, path: Path) -> None:
    await store.client.put_object(Bucket=store.bucket, Key=key, Body=path.read_bytes())  # noqa: ASYNC240 - what is measured


WAYS: dict[str, Callable[[S3BlobStore, str, Path], Awaitable[None]]] = {
    "S3BlobStore.put": adapter,
    "upload_fileobj": upload_fileobj,
    "put_object": put_object,
}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


async def measure(way: str, server: S3Server, bucket: str, path: Path, files: int) -> None:
    async with open_bucket(server, bucket, timeout_s=60) as store:
        small = path.with_name("small")
        small.write_bytes(b"x")
        await WAYS[way](store, "small", small)
        before, start = peak_mb(), time.perf_counter()
        await asyncio.gather(*[WAYS[way](store, str(number), path) for number in range(files)])
        took = time.perf_counter() - start
    print(f"{way:20}{files * SIZE / MB / took:10.0f} MB/s{peak_mb() - before:14.0f} MB grown")


def run(way: str, server: S3Server, bucket: str, path: Path, files: int) -> None:
    asyncio.run(measure(way, server, bucket, path, files))


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with S3Server() as server, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(bytes(range(250)) * (SIZE // 250))
        for way in WAYS:
            bucket = server.create_bucket()
            process = multiprocessing.get_context("fork").Process(target=run, args=(way, server, bucket, path, files))
            process.start()
            process.join()
            server.delete_bucket(bucket)


if __name__ == "__main__":
    main()
