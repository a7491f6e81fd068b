"""Whether the bucket answers."""

import asyncio
from typing import Final

from botocore.exceptions import ClientError

from textllm_adapters.s3.blob_store import S3BlobStore
from textllm_adapters.s3.errors import status_of

_TIMEOUT_S: Final = 2  # who asks waits 3 to 5 s for all probes, and they run side by side


class S3HealthProbe:
    """A `HealthProbe` that asks whether the bucket is there."""

    name = "storage"

    def __init__(self, store: S3BlobStore) -> None:
        self._store = store

    async def check(self) -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._store.client.head_bucket(Bucket=self._store.bucket)
        except ClientError as error:
            return f"The file storage answers with status {status_of(error)}."
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer; its text may hold secrets
            return f"The file storage does not answer: {type(error).__name__}."
        return None
