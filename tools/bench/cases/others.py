"""Everything that is neither a product, a convolution nor attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from .case import Case, Graph, TorchCall, node, random


def cases() -> list[Case]:
    """Softmax, norms, activations, reductions, pooling, movement, and the rest."""
    return [*_softmax(), *_norms(), *_activations(), *_reductions(), *_pooling(), *_movement()]


Drawn = tuple[int, ...] | np.ndarray
"""An array, or the shape of random numbers, which are drawn only when the case is measured."""


def _case(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Drawn],
    torch: TorchCall,
    weights: Mapping[str, Drawn] | None = None,
    moved: float | None = None,
) -> Case:
    def graph() -> Graph:
        return Graph(nodes, _draw(inputs), nodes[-1].output[0], _draw(weights or {}))

    return Case(name, graph, moved=moved, torch=torch)


def _method(name: str, *arguments: Any, **named: Any) -> TorchCall:
    """``x.name(*arguments, **named)``."""
    return lambda torch, t: lambda: getattr(t["x"], name)(*arguments, **named)


def _function(name: str, *arguments: Any, **named: Any) -> TorchCall:
    """``torch.nn.functional.name(x, *arguments, **named)``; a string "$w" is the tensor w."""

    def prepare(torch: Any, t: Mapping[str, Any]) -> Callable[[], object]:
        function = getattr(torch.nn.functional, name)
        given = [t[a[1:]] if isinstance(a, str) else a for a in arguments]
        return lambda: function(t["x"], *given, **named)

    return prepare


def _draw(drawn: Mapping[str, Drawn]) -> dict[str, np.ndarray]:
    return {
        name: value if isinstance(value, np.ndarray) else random(*value, seed=seed)
        for seed, (name, value) in enumerate(drawn.items())
    }


def _numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _softmax() -> list[Case]:
    shapes = ((12, 128, 128), (6, 197, 197), (12, 512, 512), (1, 1000), (192, 49, 49), (5, 50257))
    found = [
        _case(
            "softmax/" + "x".join(map(str, shape)),
            [node("Softmax", "x", "y", axis=-1)],
            {"x": shape},
            _method("softmax", -1),
        )
        for shape in shapes
    ]
    channels = _case(
        "softmax/21x128x128,channels",
        [node("Softmax", "x", "y", axis=1)],
        {"x": (1, 21, 128, 128)},
        _method("softmax", 1),
    )
    return [*found, channels]


def _norms() -> list[Case]:
    layers = [_layer_norm(*shape) for shape in ((128, 768), (197, 384), (3136, 96), (1, 768))]
    instance = _case(
        "norm/instance,64x128x128",
        [node("InstanceNormalization", "x s b", "y", epsilon=1e-5)],
        {"x": (1, 64, 128, 128)},
        _function("instance_norm", None, None, "$s", "$b"),
        {"s": (64,), "b": (64,)},
    )
    return [*layers, _rms_norm(128, 2048), _rms_norm(1, 2048), _group_norm(), instance]


def _layer_norm(rows: int, width: int) -> Case:
    return _case(
        f"norm/layer,{rows}x{width}",
        [node("LayerNormalization", "x s b", "y", axis=-1)],
        {"x": (rows, width)},
        _function("layer_norm", (width,), "$s", "$b"),
        {"s": (width,), "b": (width,)},
    )


def _rms_norm(rows: int, width: int) -> Case:
    nodes = [
        node("Pow", "x two", "squares"),
        node("ReduceMean", "squares", "mean", axes=[-1]),
        node("Add", "mean eps", "shifted"),
        node("Sqrt", "shifted", "root"),
        node("Div", "x root", "normal"),
        node("Mul", "normal s", "y"),
    ]
    return _case(
        f"norm/rms,{rows}x{width}",
        nodes,
        {"x": (rows, width)},
        _function("rms_norm", (width,), "$s", 1e-6),
        {"two": _scalar(2), "eps": _scalar(1e-6), "s": (width,)},
    )


def _group_norm() -> Case:
    """As torch's exporter writes it: an instance norm over the groups, then scale and shift."""
    nodes = [
        node("Reshape", "x grouped", "g"),
        node("InstanceNormalization", "g one zero", "n", epsilon=1e-5),
        node("Reshape", "n back", "r"),
        node("Mul", "r s", "m"),
        node("Add", "m b", "y"),
    ]
    weights: dict[str, Drawn] = {
        "grouped": _numbers(1, 32, -1),
        "back": _numbers(1, 128, 64, 64),
        "one": np.ones(32, np.float32),
        "zero": np.zeros(32, np.float32),
        "s": (128, 1, 1),
        "b": (128, 1, 1),
    }

    def torch(torch: Any, t: Mapping[str, Any]) -> Callable[[], object]:
        s, b = t["s"].flatten(), t["b"].flatten()
        return lambda: torch.nn.functional.group_norm(t["x"], 32, s, b)

    return _case("norm/group32,128x64x64", nodes, {"x": (1, 128, 64, 64)}, torch, weights)


def _activations() -> list[Case]:
    gelu = [
        node("Div", "x root2", "scaled"),
        node("Erf", "scaled", "erf"),
        node("Add", "erf one", "shifted"),
        node("Mul", "x shifted", "doubled"),
        node("Mul", "doubled half", "y"),
    ]
    constants: dict[str, Drawn] = {
        "root2": _scalar(2**0.5),
        "one": _scalar(1),
        "half": _scalar(0.5),
    }
    silu = [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")]
    wide: dict[str, Drawn] = {"x": (128, 3072)}
    image: dict[str, Drawn] = {"x": (1, 96, 56, 56)}
    hard = [node("HardSwish", "x", "y")]
    return [
        _case("gelu/128x3072", gelu, wide, _function("gelu"), constants),
        _case("gelu/1x3072", gelu, {"x": (1, 3072)}, _function("gelu"), constants),
        _case("activation/silu,128x3072", silu, wide, _function("silu")),
        _case("activation/tanh,128x3072", [node("Tanh", "x", "y")], wide, _method("tanh")),
        _case("activation/exp,128x3072", [node("Exp", "x", "y")], wide, _method("exp")),
        _case("activation/hardswish,96x56x56", hard, image, _function("hardswish")),
    ]


def _reductions() -> list[Case]:
    square: dict[str, Drawn] = {"x": (1024, 1024)}
    cumulative = _case(
        "cumulative/sum,128x1024",
        [node("CumSum", "x axis", "y")],
        {"x": (128, 1024)},
        _method("cumsum", 1),
        {"axis": np.array(1, np.int64)},
    )
    return [
        _case(
            "reduction/mean,1280x7x7,space",
            [node("ReduceMean", "x", "y", axes=[2, 3])],
            {"x": (1, 1280, 7, 7)},
            _method("mean", (2, 3), keepdim=True),
        ),
        _case(
            "reduction/sum,1024x1024,rows",
            [node("ReduceSum", "x axes", "y")],
            square,
            _method("sum", 0, keepdim=True),
            {"axes": _numbers(0)},
        ),
        _case(
            "reduction/max,1024x1024,columns",
            [node("ReduceMax", "x", "y", axes=[1])],
            square,
            _method("amax", 1, keepdim=True),
        ),
        _case("reduction/sum,1024x1024,all", [node("ReduceSum", "x", "y")], square, _method("sum")),
        _case(
            "reduction/mean,64x197x384,middle",
            [node("ReduceMean", "x", "y", axes=[1])],
            {"x": (64, 197, 384)},
            _method("mean", 1, keepdim=True),
        ),
        cumulative,
    ]


def _pooling() -> list[Case]:
    image: dict[str, Drawn] = {"x": (1, 64, 112, 112)}
    return [
        _case(
            "pool/max,64x112x112,k3,s2",
            [node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
            image,
            _function("max_pool2d", 3, 2, 1),
        ),
        _case(
            "pool/average,64x112x112,k2,s2",
            [node("AveragePool", "x", "y", kernel_shape=[2, 2], strides=[2, 2])],
            image,
            _function("avg_pool2d", 2),
        ),
        _case(
            "pool/global,2048x7x7",
            [node("GlobalAveragePool", "x", "y")],
            {"x": (1, 2048, 7, 7)},
            _function("adaptive_avg_pool2d", 1),
        ),
        _case(
            "pool/max,256x2048,k3,s2",
            [node("MaxPool", "x", "y", kernel_shape=[3], strides=[2], pads=[1, 1])],
            {"x": (1, 256, 2048)},
            _function("max_pool1d", 3, 2, 1),
        ),
        _case(
            "pool/average,32x16x56x56,k2,s2",
            [node("AveragePool", "x", "y", kernel_shape=[2] * 3, strides=[2] * 3)],
            {"x": (1, 32, 16, 56, 56)},
            _function("avg_pool3d", 2),
        ),
    ]


def _movement() -> list[Case]:
    return [
        _case(
            "movement/heads,128x12x64",
            [node("Transpose", "x", "y", perm=[0, 2, 1, 3])],
            {"x": (1, 128, 12, 64)},
            lambda torch, t: lambda: t["x"].transpose(1, 2).contiguous(),
        ),
        _case(
            "movement/transpose,1024x1024",
            [node("Transpose", "x", "y", perm=[1, 0])],
            {"x": (1024, 1024)},
            lambda torch, t: lambda: t["x"].T.contiguous(),
        ),
        _case(
            "movement/concat,2x64x56x56",
            [node("Concat", "a b", "y", axis=1)],
            {"a": (1, 64, 56, 56), "b": (1, 64, 56, 56)},
            lambda torch, t: lambda: torch.cat((t["a"], t["b"]), 1),
        ),
        _case(
            "movement/embedding,128x768",
            [node("Gather", "w i", "y")],
            {"i": np.random.default_rng(0).integers(0, 30522, (1, 128))},
            lambda torch, t: lambda: torch.nn.functional.embedding(t["i"], t["w"]),
            {"w": (30522, 768)},
            moved=2.0 * 128 * 768 * 4,
        ),
        _resize("linear", "bilinear", coordinate_transformation_mode="half_pixel"),
        _resize(
            "cubic", "bicubic", coordinate_transformation_mode="half_pixel", cubic_coeff_a=-0.75
        ),
        _resize(
            "nearest",
            "nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        _case(
            "sort/topk,5x50257,50",
            [node("TopK", "x k", "y where")],
            {"x": (5, 50257)},
            _method("topk", 50),
            {"k": _numbers(50)},
        ),
        _case(
            "elementwise/residual,256x56x56",
            [node("Add", "x r", "s"), node("Relu", "s", "y")],
            {"x": (1, 256, 56, 56), "r": (1, 256, 56, 56)},
            lambda torch, t: lambda: (t["x"] + t["r"]).relu_(),
        ),
    ]


def _resize(mode: str, torch_mode: str, **attributes: Any) -> Case:
    return _case(
        f"resize/{mode},64x64x64",
        [node("Resize", "x _ scales", "y", mode=mode, **attributes)],
        {"x": (1, 64, 64, 64)},
        _function("interpolate", scale_factor=2, mode=torch_mode),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    )
