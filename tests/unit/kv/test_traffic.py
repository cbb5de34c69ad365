"""Who asks for what: the same each time, in the bounds of the personas; recorded traces are read and held in bounds."""

import json
from itertools import islice, pairwise
from pathlib import Path

import pytest
from kv_plans import SHORT, tiny_plan

from stoker.core.errors import CorruptError, NotFoundError
from stoker.core.kvcache import KvPersona
from stoker.kv.traffic.personas import PREFIX_TOKENS, PersonaSource, prefix_keys, rag_documents
from stoker.kv.traffic.request import PREFILL
from stoker.kv.traffic.traces import open_trace


def test_the_same_seed_gives_the_same_requests_and_another_one_others() -> None:
    first, again = (list(islice(PersonaSource(tiny_plan(seed=5)).requests(3), 200)) for _ in range(2))
    other = list(islice(PersonaSource(tiny_plan(seed=6)).requests(3), 200))
    assert first == again != other
    assert len({request.key for request in first}) == 200


def test_requests_of_a_user_do_not_depend_on_how_others_are_asked() -> None:
    source = PersonaSource(tiny_plan(users=3))
    streams = [source.requests(user) for user in range(3)]
    mixed: dict[int, list[object]] = {0: [], 1: [], 2: []}
    for turn in range(60):
        mixed[turn * 7 % 3].append(next(streams[turn * 7 % 3]))
    for user, requests in mixed.items():
        assert requests == list(islice(source.requests(user), len(requests)))


def test_tokens_and_times_keep_to_the_persona() -> None:
    for user in range(20):
        requests = list(islice(PersonaSource(tiny_plan(prefix_caching=False)).requests(user), 100))
        assert requests[0].at_seconds == 0.0
        for before, after in pairwise(requests):
            low, high = SHORT.think_seconds
            assert 0.8 * low <= after.at_seconds - before.at_seconds <= 1.2 * high
            assert 1 <= after.context <= SHORT.context[1] and 2 <= after.generated <= SHORT.generated[1]
        most = max(request.context + request.prefix_tokens for request in requests)
        assert min(request.context + request.prefix_tokens for request in requests) >= most // 4 - 1


def test_the_mean_context_is_that_of_the_published_personas() -> None:
    personas = {
        "chatbot": KvPersona((512, 4096), (50, 200), (0.1, 0.5)),
        "coding": KvPersona((4096, 25_000), (100, 500), (0.2, 1.0)),
        "document": KvPersona((4096, 16_384), (200, 800), (0.3, 1.5)),
    }
    source = PersonaSource(tiny_plan(personas=personas, prefix_caching=False))
    contexts = [request.context for user in range(600) for request in islice(source.requests(user), 10)]
    assert sum(contexts) / len(contexts) == pytest.approx(5644, rel=0.05)


def test_a_turn_knows_all_turns_before_it_and_long_contexts_are_prefill_alone() -> None:
    requests = list(islice(PersonaSource(tiny_plan()).requests(0), 300))
    turns = [len(request.earlier) for request in requests]
    assert max(turns) >= 5 and turns.count(0) > 20
    for before, after in pairwise(requests):
        assert after.earlier in ((), (*before.earlier, before.key))
    long = tiny_plan(personas={"long": KvPersona((20_000, 20_000), (8, 8), (0.1, 0.1))}, prefix_caching=False)
    phases = {request.phase: request.context for request in islice(PersonaSource(long).requests(1), 50)}
    assert phases[PREFILL] >= 10_000 > phases["both"]
    alone = PersonaSource(tiny_plan(multi_turn=False))
    assert all(not request.earlier for request in islice(alone.requests(0), 50))


def test_shared_prompts_and_documents_are_asked_for_by_their_entries() -> None:
    plan = tiny_plan(rag_documents=3)
    requests = [each for user in range(20) for each in islice(PersonaSource(plan).requests(user), 100)]
    prompts = {request.prefix for request in requests} - {""}
    assert prompts == {key for key, _ in prefix_keys()}
    assert 0.15 < sum(bool(request.prefix) for request in requests) / len(requests) < 0.25
    assert {request.prefix_tokens for request in requests if request.prefix} == set(PREFIX_TOKENS)
    chunks = {key for document in rag_documents(plan) for key, _ in document}
    asked = [request.chunks for request in requests if request.chunks]
    assert 0.05 < len(asked) / len(requests) < 0.15
    assert all(len(set(each)) == len(each) <= 5 and set(each) <= chunks for each in asked)


def test_pages_of_a_conversation_grow_and_are_its_own() -> None:
    plan = tiny_plan(layout="block", page_tokens=64)
    talks = [list(islice(PersonaSource(plan).requests(user), 40)) for user in (0, 1)]
    for before, after in pairwise(talks[0]):
        if after.earlier:
            assert after.pages[: len(before.pages)] == before.pages
        else:
            assert not set(after.pages) & set(before.pages)
    assert not {page for each in talks[0] for page in each.pages} & {page for each in talks[1] for page in each.pages}
    other = next(iter(PersonaSource(tiny_plan(layout="block", page_tokens=64, dtype="int8")).requests(0)))
    assert not set(other.pages) & set(talks[0][0].pages)


def test_sharegpt_is_played_turn_by_turn(tmp_path: Path) -> None:
    talk = {"conversations": [{"from": who, "value": "x" * size} for who, size in (("human", 400), ("gpt", 80)) * 2]}
    (tmp_path / "talks.json").write_text(json.dumps([talk, {"conversations": []}]))
    plan = tiny_plan(source="sharegpt", source_path=str(tmp_path / "talks.json"), request_rate=10.0, replay_cycles=2)
    requests = list(open_trace(plan).requests(0))
    assert [(each.context, each.generated, len(each.earlier)) for each in requests] == [(100, 20, 0), (100, 20, 1)] * 2
    assert [each.at_seconds for each in requests] == [0.0, 0.1, 0.2, 0.3]
    assert len({each.key for each in requests}) == 4


def test_burstgpt_keeps_its_times_and_cycles(tmp_path: Path) -> None:
    lines = ["Timestamp,Request tokens,Response tokens,Total tokens", "5,100,10,110", "9,20000,20,20020"]
    (tmp_path / "one.csv").write_text("\n".join(lines) + "\n")
    plan = tiny_plan(source="burst", source_path=str(tmp_path), trace_speedup=2.0, replay_cycles=2)
    requests = list(open_trace(plan).requests(0))
    assert [each.at_seconds for each in requests] == [0.0, 2.0, 2.0, 4.0]
    assert [each.phase for each in requests[:2]] == ["both", PREFILL]


def test_mooncake_prefixes_are_shared_page_by_page(tmp_path: Path) -> None:
    rows = [(0, 1500, [1, 2, 3]), (1000, 1100, [1, 2, 9]), (2000, 600, [7, 2])]
    lines = [json.dumps({"timestamp": t, "input_length": n, "output_length": 5, "hash_ids": ids}) for t, n, ids in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    for size, whole in ((512, (2, 2, 1)), (256, (5, 4, 2)), (1024, (1, 1, 0))):
        plan = tiny_plan(source="mooncake", source_path=str(tmp_path / "t.jsonl"), layout="block", page_tokens=size)
        pages = [request.pages for request in open_trace(plan).requests(0)]
        assert tuple(len(each) for each in pages) == whole
        assert pages[1][: 1024 // size] == pages[0][: 1024 // size]
        assert not set(pages[2]) & set(pages[0])


@pytest.mark.parametrize(
    ("source", "name", "text"),
    [
        ("sharegpt", "a.json", '{"conversations": 3}'),
        ("sharegpt", "a.json", "[]"),
        ("burst", "a.csv", "Timestamp,Request tokens\n1,2\n"),
        ("burst", "a.csv", "Timestamp,Request tokens,Response tokens\n1,many,2\n"),
        ("burst", "a.csv", "Timestamp,Request tokens,Response tokens\n-1,1,2\n"),
        ("burst", "a.csv", "Timestamp,Request tokens,Response tokens\n"),
        ("mooncake", "a.jsonl", '{"timestamp": 1}\n'),
        ("mooncake", "a.jsonl", '{"timestamp": 1, "input_length": 99999999999, "output_length": 1}\n'),
        ("mooncake", "a.jsonl", ""),
    ],
)
def test_a_trace_of_another_kind_is_refused(source: str, name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorruptError):
        open_trace(tiny_plan(source=source, source_path=str(tmp_path / name)))


def test_a_missing_trace_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_trace(tiny_plan(source="burst", source_path=str(tmp_path / "none.csv")))
