"""Graphs: canonical in every process, stored with their edges; artefacts fall when their code is defined anew."""

import json
import os
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path

import pytest
from capture_sinks import MemorySink

from stoker.core.errors import MissingExtraError, UnknownNameError, UsageError
from stoker.pages.capture.canonical import code_digest, decode, encode
from stoker.pages.capture.graphs import COMPILER, Artefacts, capture_backend, capture_graph, validity_key

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'stoker[torch]'")
import capture_graph_samples  # noqa: E402 - needs torch

HERE = Path(__file__).parent
# torch uses what it has deprecated itself while it traces
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def compiled_or_skipped(function: object, backend: object, *args: object) -> object:
    torch._dynamo.reset()
    try:
        compiled = torch.compile(function, backend=backend)
    except RuntimeError as error:
        pytest.skip(f"torch.compile does not run here: {error}")
    return compiled(*args)


@pytest.mark.parametrize("kind", ["exported", "decomposed", "traced", "model"])
def test_graph_survives_the_round_trip(kind: str) -> None:
    model = capture_graph_samples.small()
    exported = torch.export.export(model, (torch.ones(2, 4),))
    value = {
        "exported": exported,
        "decomposed": exported.run_decompositions(),
        "traced": torch.fx.symbolic_trace(model),
        "model": model,
    }[kind]
    data = encode(value)
    assert encode(decode(data)) == data


def test_graph_description_tells_operators_and_shapes() -> None:
    exported = torch.export.export(capture_graph_samples.small(), (torch.ones(2, 4),))
    record = decode(encode(exported))
    nodes = record["module"]["graph"]["nodes"]
    targets = [node["target"]["name"] for node in nodes if node["op"] == "call_function"]
    assert targets[:2] == ["aten.linear.default", "aten.relu.default"]
    assert nodes[-1]["op"] == "output"
    assert nodes[-2]["value"]["shape"] == (2, 4)
    assert set(record["state"]) == {"linear.weight", "linear.bias", "offset"}
    assert record["state"]["offset"]["dtype"] == "torch.float32"


def test_weights_count_in_the_graph_and_names_of_files_do_not() -> None:
    first, second = capture_graph_samples.small(), capture_graph_samples.small()
    x = (torch.ones(2, 4),)
    assert encode(torch.export.export(first, x)) == encode(torch.export.export(second, x))
    with torch.no_grad():
        second.linear.bias[0] += 1
    assert encode(torch.export.export(first, x)) != encode(torch.export.export(second, x))
    assert code_digest(first) == code_digest(second)


@pytest.mark.parametrize("hash_seed", ["0", "99"])
def test_other_processes_make_the_same_bytes(hash_seed: str) -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, capture_graph_samples; print(json.dumps(capture_graph_samples.digests()))",
        ],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
    ).stdout
    assert json.loads(told) == capture_graph_samples.digests()


def test_symbolic_shapes_and_subgraphs_are_encoded() -> None:
    class Branch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))

    dims = ({0: torch.export.Dim("rows", min=2, max=64)},)
    exported = torch.export.export(Branch(), (torch.ones(4, 3),), dynamic_shapes=dims)
    data = encode(exported)
    assert encode(decode(data)) == data
    graph = decode(data)["module"]
    assert any(record.kind == "graph_module" for record in graph["attributes"].values())
    assert isinstance(graph["graph"]["nodes"][0]["value"]["shape"][0], str)


def test_tensors_of_every_type_have_bytes() -> None:
    tensors = [
        torch.ones(2, 3).t(),
        torch.ones((), dtype=torch.bfloat16),
        torch.zeros(0, 4),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.tensor([True, False]),
        torch.ones(2, device="meta"),
    ]
    found = [encode(tensor) for tensor in tensors]
    assert len(set(found)) == len(found)
    assert encode(torch.ones(2, 3).t()) == encode(torch.ones(3, 2))
    with pytest.raises(UsageError, match="sparse"):
        encode(torch.eye(2).to_sparse())


def test_capture_stores_source_and_graphs_with_their_edges() -> None:
    sink = MemorySink()
    model = capture_graph_samples.small()
    pages = capture_graph(model, (torch.ones(2, 4),), sink)
    assert [sink.pages[page][0] for page in (pages.source, pages.before, pages.after)] == [
        "Small/source",
        "Small/graph.before",
        "Small/graph.after",
    ]
    assert sink.edges == [(pages.source, pages.before, COMPILER), (pages.before, pages.after, COMPILER)]
    assert "class Small" in decode(sink.pages[pages.source][1])["text"]
    assert sink.pages[pages.before][1] != sink.pages[pages.after][1]
    assert sink.pages[pages.before][2]["key"] == validity_key(model) == pages.key


def test_only_modules_are_exported() -> None:
    with pytest.raises(UsageError, match="only modules"):
        capture_graph(len, (), MemorySink())


def doubled(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) + 1


def relu_to_neg(module: torch.fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.target is torch.relu:
            node.target = torch.neg


def test_backend_stores_graphs_before_and_after_passes_and_the_artefact() -> None:
    sink = MemorySink()
    backend = capture_backend(sink, passes=(relu_to_neg,), source=doubled)
    result = compiled_or_skipped(doubled, backend, torch.ones(3))
    assert result.tolist() == [0.0, 0.0, 0.0]
    (pages,) = backend.captured
    chain = [pages.source, pages.before, pages.after, pages.artefact]
    assert sink.edges == [(a, b, COMPILER) for a, b in pairwise(chain)]
    assert b"torch.relu" in sink.pages[pages.before][1]
    assert b"torch.relu" not in sink.pages[pages.after][1]
    assert "neg" in decode(sink.pages[pages.artefact][1])["text"]
    assert sink.pages[pages.artefact][0] == "doubled.0/artefact.eager"


def test_backend_without_source_starts_at_the_graph() -> None:
    sink = MemorySink()
    backend = capture_backend(sink, inner=lambda module, inputs: module.forward)
    compiled_or_skipped(capture_graph_samples.small(), backend, torch.ones(2, 4))
    (pages,) = backend.captured
    assert pages.source == 0
    assert sink.edges == [(pages.before, pages.after, COMPILER), (pages.after, pages.artefact, COMPILER)]


def test_compiled_twice_gives_the_same_pages() -> None:
    sinks = MemorySink(), MemorySink()
    for sink in sinks:
        compiled_or_skipped(doubled, capture_backend(sink, source=doubled), torch.ones(3))
    assert sinks[0].pages == sinks[1].pages


def test_unknown_inner_backend_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="known: "):
        capture_backend(MemorySink(), inner="no-such-backend")


def defined(source: str) -> types.ModuleType:
    module = types.ModuleType("redefined_sample")
    sys.modules["redefined_sample"] = module
    exec(source, module.__dict__)
    return module


@pytest.fixture(autouse=True)
def no_sample_module() -> object:
    yield
    sys.modules.pop("redefined_sample", None)


SOURCE = "def g(x): return x + 1\ndef f(x): return g(x) * 2\ndef h(x): return x\n"


def test_redefined_function_invalidates_what_was_made_from_it() -> None:
    sink = MemorySink()
    artefacts = Artefacts(sink)
    module = defined(SOURCE)
    artefacts.register(7, module.f)
    artefacts.register(8, module.h)
    assert artefacts.check() == []
    exec("def f(x): return g(x) * 3\n", module.__dict__)
    assert artefacts.check() == [7]
    assert sink.invalid == [7]
    assert not artefacts.valid(7)
    assert artefacts.valid(8)
    assert artefacts.check() == []
    assert sink.invalid == [7]
    artefacts.register(7, module.f)
    assert artefacts.valid(7)
    assert artefacts.check() == []


def test_redefined_helper_and_reloaded_module_count_too() -> None:
    artefacts = Artefacts(MemorySink())
    module = defined(SOURCE)
    artefacts.register(1, module.f)
    assert defined(SOURCE) is not module
    assert artefacts.check() == []
    defined(SOURCE.replace("x + 1", "x + 2"))
    assert artefacts.check() == [1]


def test_method_set_on_a_class_invalidates_its_models() -> None:
    artefacts = Artefacts(MemorySink())
    model = capture_graph_samples.small()
    artefacts.register(1, model)
    assert artefacts.check() == []
    before = capture_graph_samples.Small.forward
    capture_graph_samples.Small.forward = lambda self, x: x
    try:
        assert artefacts.check() == [1]
    finally:
        capture_graph_samples.Small.forward = before


def test_changed_closure_invalidates() -> None:
    amount = 1

    def add(x: int) -> int:
        return x + amount

    artefacts = Artefacts(MemorySink())
    artefacts.register(1, add)
    assert artefacts.check() == []
    amount = 2
    assert artefacts.check() == [1]


def test_pages_that_are_not_registered_are_unknown() -> None:
    artefacts = Artefacts(MemorySink())
    artefacts.register(1, len)
    artefacts.forget(1)
    with pytest.raises(UnknownNameError):
        artefacts.valid(1)


def test_missing_torch_is_told_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"stoker\[torch\]"):
        capture_graph(object(), (), MemorySink())
    with pytest.raises(MissingExtraError, match=r"stoker\[torch\]"):
        capture_backend(MemorySink())
