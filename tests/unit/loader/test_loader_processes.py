"""Worker processes of every kind: each makes its own loader, together they visit each sample once."""

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from loader_datasets import build

from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.manifest_file import save_manifest
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.api import Store
from stoker.storage.opening import open_store

WORKERS = 3


def work(folder: str, rank: int, world_size: int, answer: Connection) -> None:
    """Read one epoch as this rank and send what was seen."""
    store = open_store(f"file://{folder}")
    with Loader(
        store, open_manifest(store, "train"), LoaderOptions(batch_size=3), rank=rank, world_size=world_size
    ) as loader:
        seen = [number for batch in loader.epoch(1) for number in batch.sample_ids.tolist()]
        answer.send((seen, loader.order_digest(), loader.expected_digest()))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_every_start_method_share_an_epoch(tmp_path: Path, method: str) -> None:
    store = open_store(f"file://{tmp_path}?fsync=none")
    manifest = build(store, "npz", [4] * 12, (8,))
    save_manifest(store, "train", manifest)
    # The parent has a loader of its own, with threads, while the workers start.
    with Loader(store, manifest, LoaderOptions(batch_size=3)) as parent:
        steps = parent.epoch(1)
        next(steps)
        context = multiprocessing.get_context(method)
        answers, processes = [], []
        for rank in range(WORKERS):
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(str(tmp_path), rank, WORKERS, send))
            process.start()
            send.close()
            answers.append(receive)
            processes.append(process)
        told = [answer.recv() for answer in answers]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * WORKERS
        assert len(list(steps)) == 15
    seen = [number for numbers, _, _ in told for number in numbers]
    digest = 0
    for _, part, _ in told:
        digest ^= part
    assert len(seen) == len(set(seen)) == 45
    assert {expected for _, _, expected in told} == {digest}


def test_a_loader_inherited_over_a_fork_says_what_to_do(memory: Store) -> None:
    manifest = build(memory, "npz", [1] * 40, (8,))
    with Loader(memory, manifest, LoaderOptions(batch_size=4)) as loader:
        steps = loader.epoch(1)
        next(steps)
        receive, send = multiprocessing.Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            messages = []
            for action in (lambda: next(steps), lambda: loader.epoch(1), lambda: loader.load_state_dict({})):
                try:
                    action()
                except Exception as error:
                    messages.append(str(error))
            try:
                steps.close()
                loader.close()  # must not wait for threads that stayed in the parent
                send.send(messages)
            finally:
                os._exit(0)
        messages = receive.recv()
        os.waitpid(child, 0)
        assert len(messages) == 3
        assert all("made in another process" in message and "with its own rank" in message for message in messages)
        assert len(list(steps)) == 9
