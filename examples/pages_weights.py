"""A trainer publishes weights; workers on the same host take only what changed. NumPy only.

python examples/pages_weights.py
"""

import multiprocessing
from uuid import uuid4

import numpy as np

from stoker.pages import Store, apply_weights, publish_weights

STEPS, WORKERS, ELEMENTS = 5, 2, 200_000
Model = dict[str, np.ndarray]


def new_model() -> Model:
    """Return a model of two tensors, all zero."""
    return {"layer.weight": np.zeros((ELEMENTS // 100, 100), np.float16), "layer.bias": np.zeros(100, np.float32)}


def train_step(model: Model, step: int) -> None:
    """Change one element in a hundred."""
    flat = model["layer.weight"].reshape(-1)
    chosen = np.random.default_rng(step).choice(flat.size, flat.size // 100, replace=False)
    flat[chosen] += np.float16(0.5)
    model["layer.bias"] += 1


def checksum(model: Model) -> float:
    """Return a number that tells two versions apart."""
    return float(sum(tensor.astype(np.float64).sum() for tensor in model.values()))


def work(name: str, ready: "multiprocessing.Barrier", results: "multiprocessing.Queue[float]") -> None:
    """Follow the trainer, step by step."""
    model, lsn = new_model(), 0
    with Store.attach(name) as store:
        for _ in range(STEPS):
            ready.wait()  # published
            lsn = apply_weights(model, store, since=lsn)
            ready.wait()  # taken
        results.put(checksum(model))


def main() -> None:
    """Train, publish after every step, and hold the workers' weights against the trainer's."""
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(WORKERS + 1), context.Queue()
    model = new_model()
    with Store.open(name=f"example-{uuid4().hex}", size_bytes=16 << 20) as store:
        workers = [context.Process(target=work, args=(store.name, ready, results)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        for step in range(STEPS):
            train_step(model, step)
            published = publish_weights(model, store)
            ratio = published.weight_bytes / published.logged_bytes
            print(f"version {published.version}: {published.weight_bytes} bytes of weights, {ratio:.0f}x less logged")
            ready.wait()
            ready.wait()
        same = all(results.get() == checksum(model) for _ in workers)
        for worker in workers:
            worker.join()
    print(f"{WORKERS} workers have the trainer's weights: {same}")


if __name__ == "__main__":
    main()
