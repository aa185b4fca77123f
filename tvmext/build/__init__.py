"""Scheduled module -> shared library, in a child process so that a crash is an error message.

Only plain data is imported here; `build_module` and `link` (kernels.py, link.py) need TVM and are
imported in the child.
"""

from .child import Progress, compile_in_child
from .request import CompileRequest

__all__ = ["CompileRequest", "Progress", "compile_in_child"]
