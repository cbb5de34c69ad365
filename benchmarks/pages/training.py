"""A small GPT under AdamW with fp32 masters: what its bfloat16 copies become from step to step. Needs torch."""

from collections.abc import Iterator

import numpy as np

VOCABULARY, WIDTH, LAYERS, TOKENS = 2048, 256, 3, 128


def steps(learning_rate: float, *, warm: int, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the bfloat16 copies of all parameters, uint16 of shape (elements,), before and after each of some steps.

    warm  steps of ten times a usual rate before, so that the optimizer's moments are those of training
    """
    import torch

    torch.manual_seed(11)
    torch.set_num_threads(1)
    layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
    model = torch.nn.ModuleDict(
        {
            "tokens": torch.nn.Embedding(VOCABULARY, WIDTH),
            "places": torch.nn.Embedding(TOKENS, WIDTH),
            "blocks": torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False),
            "head": torch.nn.Linear(WIDTH, VOCABULARY, bias=False),
        }
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    chance = np.random.default_rng(12)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(TOKENS)

    def step() -> None:
        tokens = torch.from_numpy(chance.zipf(1.3, (2, TOKENS + 1)) % VOCABULARY)
        hidden = model["tokens"](tokens[:, :-1]) + model["places"].weight
        found = model["head"](model["blocks"](hidden, mask=mask, is_causal=True))
        torch.nn.functional.cross_entropy(found.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    def copies() -> dict[str, np.ndarray]:
        return {
            name: value.detach().to(torch.bfloat16).view(torch.int16).numpy().reshape(-1).view(np.uint16).copy()
            for name, value in model.state_dict().items()
        }

    for _ in range(warm):
        step()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    step()
    yield copies()
    for _ in range(count):
        step()
        yield copies()
