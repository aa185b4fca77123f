"""Operators whose kernels take in the loader of an operand (FuseOps: injective into injective)."""

FUSIBLE = frozenset(
    f"relax.{name}"
    for name in (
        *("add", "subtract", "multiply", "divide", "power", "mod", "floor_mod", "floor_divide"),
        *("maximum", "minimum", "where", "astype", "clip", "negative", "abs", "sign", "square"),
        *("sqrt", "rsqrt", "exp", "log", "sin", "cos", "tanh", "erf", "sigmoid", "floor", "ceil"),
        *("round", "trunc", "isnan", "isinf", "isfinite", "bitwise_not", "logical_not"),
        *("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"),
        *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
        *("nn.relu", "nn.gelu", "nn.gelu_tanh", "nn.silu", "nn.leakyrelu", "nn.softplus"),
    )
)
"""Names of elementwise operators in Relax."""
