"""What the tests of devices share. Without a CUDA device, kernels in Triton are interpreted on the host."""

import os

import pytest

torch = pytest.importorskip("torch", reason="the package torch is not installed")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are first imported

from stoker.pages.devices.kernels import has_triton, kernels_for  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NO_TRITON = "the package triton is not installed"


@pytest.fixture(params=["host", "eager", "triton"])
def kernels(request):
    """Return each set of kernels that runs here."""
    if request.param == "host" and DEVICE != "cpu":
        pytest.skip("the host's kernels do not reach the device")
    if request.param == "triton" and not has_triton():
        pytest.skip(NO_TRITON)
    return kernels_for(DEVICE, request.param)


@pytest.fixture
def device() -> str:
    """Return the device that the tests run on."""
    return DEVICE
