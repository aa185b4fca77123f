"""A model that fails becomes a small one that fails in the same way."""

from .reduce import reduce

__all__ = ["reduce"]
