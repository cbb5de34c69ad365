"""The one door to torch, which is optional."""

from stoker.pages.interchange import loaded_torch, need_torch

__all__ = ["loaded_torch", "need_torch"]
