"""OpPatternKinds that lowerings give their functions (TVM: include/tvm/relax/op_attr_types.h)."""

OUT_FUSABLE = 4
"""Of functions that take elementwise consumers in, and no producers."""

OPAQUE = 8
"""Of functions that FuseOps leaves alone."""
