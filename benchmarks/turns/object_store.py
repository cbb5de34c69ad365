"""One client, one piece of work against an S3 service, for any interpreter that has the client.

Arguments: client, work (get, ranges, put, list), prefix, count, size_bytes, in_flight. Endpoint and keys come from the
environment. A get takes whole objects `PREFIX/0` and on; `ranges` takes size_bytes from places spread over 1 MiB
objects; what is fetched lies in memory at the end of each group of 256.
"""

import asyncio
import os
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import count as numbers

from window import Window, arguments

BUCKET = "stoker-bench"
GROUP = 256
OBJECT_BYTES = 1 << 20


def jobs(asked):
    """Return (key, offset, length) of everything to fetch, the same for every client."""
    size, total = asked["size_bytes"], asked["count"]
    if asked["work"] == "get":
        return [(f"{asked['prefix']}/{number}", 0, size) for number in range(total)]
    places = random.Random(7)
    return [
        (f"{asked['prefix']}/{number // 10}", places.randrange(OBJECT_BYTES - size), size) for number in range(total)
    ]


def groups(wanted):
    """Yield the jobs in groups."""
    for start in range(0, len(wanted), GROUP):
        yield wanted[start : start + GROUP]


class Stoker:
    """Ours: one thread, one call for a group; puts side by side."""

    def __init__(self, asked):
        import numpy as np

        from stoker.storage.opening import open_store

        self.store = open_store(f"s3://{BUCKET}?queue_depth={asked['in_flight']}")
        self.in_flight = asked["in_flight"]
        self.reader = self.store.batch_reader()
        # A loader uses its buffers again and again: what the first touch of their pages costs is not counted.
        self.into = np.ones(GROUP * max(1, asked["size_bytes"]), np.uint8)

    def fetch(self, wanted):
        """Read into memory of our own."""
        import numpy as np

        from stoker.storage.batch import BatchRead

        into = self.into
        for group in groups(wanted):
            keys = list(dict.fromkeys(key for key, _, _ in group))
            places = {key: number for number, key in enumerate(keys)}
            rows = [
                (places[key], offset, size, size, into.ctypes.data + number * size)
                for number, (key, offset, size) in enumerate(group)
            ]
            batch = BatchRead(keys, np.array(rows, np.int64))
            self.reader.read(batch)
            if batch.ranges_done[:, 0].any():
                raise OSError(f"reads failed: {self.reader.error(batch, int(batch.ranges_done[:, 0].argmax()))}")

    def put(self, keys, data):
        """Put every key."""
        from stoker.storage.submit import WriteRequest, write_many

        requests = (WriteRequest(key, data) for key in keys)
        failed = [done.error for done in write_many(self.store, requests, in_flight_max=self.in_flight) if done.error]
        if failed:
            raise failed[0]

    def list(self, prefix):
        """Return the keys."""
        return [info.key for info in self.store.list(prefix)]


class Obstore:
    """The client below ours, from an asyncio loop."""

    def __init__(self, asked):
        import obstore
        from obstore.store import S3Store

        self.obstore, self.in_flight = obstore, asked["in_flight"]
        self.store = S3Store(BUCKET, endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True})

    def fetch(self, wanted):
        """Get each range, as many at once as asked."""
        self._side_by_side(self._get, wanted)

    async def _get(self, key, offset, size):
        response = await self.obstore.get_async(self.store, key, options={"range": (offset, offset + size)})
        if len(await response.bytes_async()) != size:
            raise OSError("short")

    def put(self, keys, data):
        """Put every key."""
        self._side_by_side(self._put, [(key, data) for key in keys])

    async def _put(self, key, data):
        await self.obstore.put_async(self.store, key, data, use_multipart=False)

    def _side_by_side(self, one, wanted):
        async def work(waiting):
            for job in waiting:
                await one(*job)

        async def run():
            waiting = iter(wanted)
            await asyncio.gather(*(work(waiting) for _ in range(self.in_flight)))

        asyncio.run(run())

    def list(self, prefix):
        """Return the keys."""
        return [meta["path"] for page in self.obstore.list(self.store, prefix) for meta in page]


class Boto3:
    """The usual client, in as many threads as requests are to be under way."""

    def __init__(self, asked):
        import boto3
        from botocore.config import Config

        config = Config(max_pool_connections=asked["in_flight"], s3={"addressing_style": "path"})
        self.client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], config=config)
        self.pool = ThreadPoolExecutor(asked["in_flight"])

    def fetch(self, wanted):
        """Get each range."""
        for group in groups(wanted):
            list(self.pool.map(self._get, group))

    def _get(self, job):
        key, offset, size = job
        answer = self.client.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={offset}-{offset + size - 1}")
        if len(answer["Body"].read()) != size:
            raise OSError("short")

    def put(self, keys, data):
        """Put every key."""
        list(self.pool.map(lambda key: self.client.put_object(Bucket=BUCKET, Key=key, Body=data), keys))

    def list(self, prefix):
        """Return the keys."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page["Contents"]]


class S3dlio:
    """s3dlio: its bulk calls where it has them, threads for ranges."""

    def __init__(self, asked):
        import s3dlio

        self.s3dlio, self.in_flight = s3dlio, asked["in_flight"]
        self.pool = ThreadPoolExecutor(asked["in_flight"])
        self.whole = asked["work"] == "get"

    def fetch(self, wanted):
        """Get whole objects in bulk, ranges one by one."""
        for group in groups(wanted):
            if self.whole:
                uris = [f"s3://{BUCKET}/{key}" for key, _, _ in group]
                found = [len(memoryview(view)) for _, view in self.s3dlio.get_many(uris, self.in_flight)]
            else:
                found = list(self.pool.map(self._get, group))
            if sum(found) != sum(size for _, _, size in group):
                raise OSError("short")

    def _get(self, job):
        key, offset, size = job
        return len(memoryview(self.s3dlio.get_range(f"s3://{BUCKET}/{key}", offset, size)))

    def put(self, keys, data):
        """Put every key."""
        self.s3dlio.put_many([(f"s3://{BUCKET}/{key}", data) for key in keys], self.in_flight)

    def list(self, prefix):
        """Return the keys."""
        return list(self.s3dlio.list(f"s3://{BUCKET}/{prefix}", recursive=True))


CLIENTS = {"stoker": Stoker, "obstore": Obstore, "boto3": Boto3, "s3dlio": S3dlio}


def main():
    """Warm up with a few requests, then measure."""
    asked = arguments()
    client = CLIENTS[asked["client"]](asked)
    work, window = asked["work"], Window()
    if work in ("get", "ranges"):
        wanted = jobs(asked)
        client.fetch(wanted[: 2 * asked["in_flight"]])
        window.start()
        client.fetch(wanted)
        window.stop()
        window.report(sum(size for _, _, size in wanted), len(wanted))
    elif work == "put":
        data = random.Random(1).randbytes(asked["size_bytes"])
        names = (f"written/{asked['client']}/{number}" for number in numbers())
        client.put([next(names) for _ in range(4)], data)
        window.start()
        client.put([next(names) for _ in range(asked["count"])], data)
        window.stop()
        window.report(asked["count"] * asked["size_bytes"], asked["count"])
    else:
        prefix = f"{asked['prefix']}/"
        client.list(prefix)
        window.start()
        found = [client.list(prefix) for _ in range(asked["times"])]
        window.stop()
        if any(len(keys) != asked["count"] for keys in found):
            raise OSError(f"listed {len(found[0])} keys, not {asked['count']}")
        window.report(sum(len(key) for keys in found for key in keys), sum(map(len, found)))


if __name__ == "__main__":
    main()
