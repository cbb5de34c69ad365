"""What the tests of devices share. Without a CUDA device, kernels in Triton are interpreted on the host."""

import os

import pytest

from stoker.pages.devices.kernels import has_triton, kernels_for

try:
    import torch
except ImportError:
    torch = None  # each file that needs it says so, and is skipped
CUDA = torch is not None and torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are first imported


@pytest.fixture(params=["host", "eager", "triton"])
def kernels(request):
    """Return each set of kernels that runs here."""
    if request.param == "host" and CUDA:
        pytest.skip("the host's kernels do not reach the device")
    if request.param == "triton" and not has_triton():
        pytest.skip("the package triton is not installed")
    return kernels_for("cuda" if CUDA else "cpu", request.param)


@pytest.fixture
def device() -> str:
    """Return the device that the tests run on."""
    return "cuda" if CUDA else "cpu"
