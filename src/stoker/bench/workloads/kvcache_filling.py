"""What lies in a KV cache before its trial begins: nothing of it is measured."""

import threading
from collections.abc import Callable, Iterator

from stoker.bench.workloads.kvcache_requests import PREPARED_A_USER, PREPARED_TOKENS, prepared_key
from stoker.core.kvcache import KvPlan
from stoker.kv.cache import KvCache
from stoker.kv.trace_log import PREFILL
from stoker.kv.traffic.personas import rag_documents

_Entry = tuple[str, int]


def prepare(cache: KvCache, plan: KvPlan, trial: int, stopped: Callable[[], bool]) -> None:
    """Write what the trial needs: the load of preconditioning before the first, documents, entries that are only read.

    Raises what the cache raises.
    """
    if trial == 1 and plan.precondition_bytes:
        _write(cache, _preconditioning(plan), plan.precondition_threads, stopped)
    _write(cache, _needed(plan), plan.precondition_threads, stopped)


def _preconditioning(plan: KvPlan) -> Iterator[_Entry]:
    size = max(1, PREPARED_TOKENS * plan.token_bytes)
    for number in range(-(-plan.precondition_bytes // size)):
        yield f"precond_{number}", PREPARED_TOKENS


def _needed(plan: KvPlan) -> Iterator[_Entry]:
    for document in rag_documents(plan):
        yield from document
    if plan.mode == "decode":
        for number in range(PREPARED_A_USER * plan.users):
            yield prepared_key(number), PREPARED_TOKENS


def _write(cache: KvCache, entries: Iterator[_Entry], threads: int, stopped: Callable[[], bool]) -> None:
    """Write all entries by several threads; a wish to stop ends them between two entries."""
    taking, errors = threading.Lock(), list[BaseException]()

    def work() -> None:
        try:
            while not errors and not stopped():
                with taking:
                    entry = next(entries, None)
                if entry is None:
                    return
                cache.write(*entry, PREFILL)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, name="stoker-kv-fill") for _ in range(max(1, threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
