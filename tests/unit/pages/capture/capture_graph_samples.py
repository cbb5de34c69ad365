"""Models whose graphs are compared between processes."""

import torch


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
        self.register_buffer("offset", torch.arange(3, dtype=torch.float32))

    def forward(self, x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        y = torch.nn.functional.relu(self.linear(x)) * scale + self.offset
        return torch.cat([y[:, 1:], y.to(torch.bfloat16).float()[:, :2]], dim=1)


def small() -> Small:
    torch.manual_seed(1)
    return Small()


def digests() -> list[str]:
    import hashlib

    from stoker.pages.capture.canonical import code_digest, encode

    model, x = small(), torch.ones(2, 4)
    exported = torch.export.export(model, (x,))
    traced = torch.fx.symbolic_trace(model)
    return [hashlib.sha256(encode(value)).hexdigest() for value in (exported, traced, model)] + [code_digest(model)]
