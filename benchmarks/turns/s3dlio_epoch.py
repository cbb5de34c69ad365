"""s3dlio over file:// URIs: whole files as bytes, nothing decoded. Arguments: paths_file, mode (get_many or loader),
batch_size, epochs, workers.
"""

import asyncio

import s3dlio
from window import arguments, measure_epochs, paths


def many(uris, asked):
    """Get the files batch by batch, as many in flight as s3dlio likes."""
    total = count = 0
    step = asked["batch_size"]
    for start in range(0, len(uris), step):
        for _, view in s3dlio.get_many(uris[start : start + step]):
            total, count = total + len(memoryview(view)), count + 1
    return total, count


async def loaded(uris, asked):
    """Iterate over s3dlio's own loader."""
    options = {"batch_size": asked["batch_size"], "num_workers": asked["workers"], "prefetch": 2}
    total = count = 0
    async for batch in s3dlio.PyBytesAsyncDataLoader(s3dlio.PyDataset.from_uris(uris), options):
        for item in batch if isinstance(batch, list) else [batch]:
            total, count = total + len(memoryview(item)), count + 1
    return total, count


def main():
    """Deliver the epochs asked for."""
    asked = arguments()
    uris = [f"file://{path}" for path in paths(asked)]

    def epoch():
        return many(uris, asked) if asked["mode"] == "get_many" else asyncio.run(loaded(uris, asked))

    measure_epochs(epoch, asked["epochs"])


if __name__ == "__main__":
    main()
