"""The doctor tells which kernels run, and how to get the native ones."""

import pytest

from stoker.bench.run import doctor
from stoker.core.errors import UsageError
from stoker.kernels.native import REMEDY, KernelStatus


def kernels_line(monkeypatch: pytest.MonkeyPatch, status: KernelStatus | UsageError) -> doctor.Check:
    def told() -> KernelStatus:
        if isinstance(status, UsageError):
            raise status
        return status

    monkeypatch.setattr(doctor, "kernel_status", told)
    return next(check for check in doctor.examine() if check.name == "kernels")


def test_native_kernels_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    check = kernels_line(monkeypatch, KernelStatus("native", cpu_level="avx2"))
    assert (check.status, check.observed, check.remedy) == ("ok", "native, for avx2", "")


def test_plain_twins_are_warned_of_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    check = kernels_line(monkeypatch, KernelStatus("plain", reason="why not", remedy=REMEDY))
    assert (check.status, check.observed, check.remedy) == ("warn", "plain twins: why not", REMEDY)


def test_a_bad_choice_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    check = kernels_line(monkeypatch, UsageError("environment variable has an unknown value", where="STOKER_KERNELS"))
    assert check.status == "fail"
    assert "STOKER_KERNELS" in check.observed
