"""Torch's tensors, operators, modules and FX graphs as plain descriptions; torch is only touched where it is loaded."""

import hashlib
import types
from collections.abc import Callable
from typing import Any

from stoker.core.errors import UsageError
from stoker.pages.capture.extras import loaded_torch
from stoker.pages.capture.functions import qualified
from stoker.pages.capture.tagged import Record

Describe = Callable[[Any], Any]


def describe_torch(value: Any, describe: Describe) -> Any:
    """Return the description of a thing of torch, None for any other."""
    torch = loaded_torch()
    if torch is None or not type(value).__module__.startswith("torch"):
        module_like = torch is not None and isinstance(value, torch.nn.Module)
        if not module_like:
            return None
    if isinstance(value, torch.Tensor):
        return describe_tensor(value)
    if isinstance(value, torch.export.ExportedProgram):
        return _exported(value, describe)
    if isinstance(value, torch.fx.GraphModule):
        return _graph_module(value, describe)
    if isinstance(value, torch.nn.Module):
        return _module(value, describe)
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format | torch.device):
        return Record(type(value).__name__, {"name": str(value)})
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return Record("symbol", {"kind": type(value).__name__, "name": str(value)})
    if isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket | torch._ops.HigherOrderOperator):
        return Record("operator", {"name": operator_name(value)})
    if isinstance(value, torch.Size):
        return Record("size", {"dims": tuple(describe(dim) for dim in value)})
    return None


def operator_name(operator: Any) -> str:
    """Return the qualified name of an operator: `aten.add.Tensor`, `higher_order.cond`."""
    named = str(operator)
    if hasattr(operator, "namespace") and not named.startswith(f"{operator.namespace}."):
        return f"{operator.namespace}.{named}"
    return named


def describe_tensor(tensor: Any) -> Record:
    """Return dtype, shape and SHA-256 of a tensor's elements; of one without elements (meta, fake) no digest.

    Raises UsageError for a layout whose elements cannot be read in order.
    """
    torch = loaded_torch()
    facts: dict[str, Any] = {"dtype": str(tensor.dtype), "shape": tuple(_dim(dim) for dim in tensor.shape)}
    held = not isinstance(tensor, torch._subclasses.FakeTensor) and tensor.device.type != "meta"
    if held and tensor.layout is not torch.strided:
        raise UsageError("a sparse tensor has no canonical bytes", got=str(tensor.layout))
    if held:
        flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        facts["sha256"] = hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
    return Record("tensor", facts)


def _dim(dim: Any) -> int | str:
    """Return a dimension, the name of the symbol where it is one."""
    return dim if type(dim) is int else str(dim)


def _module(module: Any, describe: Describe) -> Record:
    """Return the classes of a model's modules and their settings, without the values of its parameters."""
    parts = {
        name: {"class": describe(type(part)), "settings": part.extra_repr()} for name, part in module.named_modules()
    }
    state = {
        name: {"dtype": str(value.dtype), "shape": tuple(value.shape)} for name, value in module.state_dict().items()
    }
    return Record("nn_module", {"parts": parts, "state": state})


def _graph_module(module: Any, describe: Describe) -> Record:
    """Return a graph with what its nodes refer to."""
    held: dict[str, Any] = {}
    for node in module.graph.nodes:
        if node.op in ("get_attr", "call_module"):
            held[node.target] = describe(_attribute(module, node.target))
    return Record("graph_module", {"graph": describe_graph(module.graph, describe), "attributes": held})


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _exported(program: Any, describe: Describe) -> Record:
    """Return an exported program: graph, signature, state and constants."""
    signature = program.graph_signature
    inputs = [(spec.kind.name, _argument(spec.arg), spec.target, spec.persistent) for spec in signature.input_specs]
    outputs = [(spec.kind.name, _argument(spec.arg), spec.target) for spec in signature.output_specs]
    return Record(
        "exported_program",
        {
            "module": _graph_module(program.graph_module, describe),
            "inputs": inputs,
            "outputs": outputs,
            "state": {name: describe(value) for name, value in program.state_dict.items()},
            "constants": {name: describe(value) for name, value in program.constants.items()},
            "ranges": {str(symbol): str(bounds) for symbol, bounds in program.range_constraints.items()},
        },
    )


def _argument(argument: Any) -> Any:
    value = getattr(argument, "value", None)
    plain = value if type(value) in (int, float, bool, str, type(None)) else str(value)
    return (type(argument).__name__, getattr(argument, "name", ""), plain)


def describe_graph(graph: Any, describe: Describe) -> Record:
    """Return an FX graph: nodes in their order, numbered from 0, targets by qualified name."""
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    return Record("graph", {"nodes": [_node(node, numbers, describe) for node in graph.nodes]})


def _node(node: Any, numbers: dict[Any, int], describe: Describe) -> Record:
    torch = loaded_torch()

    def plain(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return Record("ref", {"node": numbers[value]})
        if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
            return (tuple if isinstance(value, tuple) else list)(plain(item) for item in value)
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, slice):
            return Record("slice", {"parts": (plain(value.start), plain(value.stop), plain(value.step))})
        return describe(value)

    fields = {
        "op": node.op,
        "name": node.name,
        "target": node.target if isinstance(node.target, str) else _target(node.target, describe),
        "args": plain(node.args),
        "kwargs": plain(node.kwargs),
        "value": _meta(node.meta.get("val", node.meta.get("example_value"))),
    }
    return Record("node", fields)


def _target(target: Any, describe: Describe) -> Any:
    """Return the qualified name of a target; the code of a function that has none that leads to it."""
    torch = loaded_torch()
    if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket | torch._ops.HigherOrderOperator):
        return Record("operator", {"name": operator_name(target)})
    if isinstance(target, types.BuiltinFunctionType | types.BuiltinMethodType) and hasattr(torch, target.__name__):
        # torch's own functions do not know their module
        return f"torch.{target.__name__}" if getattr(torch, target.__name__) is target else qualified(target)
    name = qualified(target)
    return describe(target) if "<" in name else name


def _meta(value: Any) -> Any:
    """Return what is known of a node's value: dtype, shape, stride, device."""
    torch = loaded_torch()
    if isinstance(value, torch.Tensor):
        strided = value.layout is torch.strided
        return {
            "dtype": str(value.dtype),
            "shape": tuple(_dim(dim) for dim in value.shape),
            "stride": tuple(_dim(dim) for dim in value.stride()) if strided else None,
            "device": value.device.type,
        }
    if isinstance(value, tuple | list):
        return tuple(_meta(item) for item in value)
    return None if value is None else str(value)
