"""Compiled models in this process: load, run, save."""

from .model import CompiledModel, load

__all__ = ["CompiledModel", "load"]
