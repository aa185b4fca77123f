"""Every converter against onnx.reference, with known and with free dims."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontends.onnx.stock import assert_matches, one_node, run
from tvmext.frontends import load

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)
Y = RNG.standard_normal((3, 4)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 3, 7, 6)).astype(np.float32)
WEIGHT = RNG.standard_normal((4, 3, 3, 2)).astype(np.float32)
INTS = np.array([[5, -3, 2], [-7, 4, 0]])
FREE = {0: ("n", "c", "w")}
"""All dims of X dynamic."""


def i64(*values):
    return np.array(values, np.int64)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


UNARY = [
    "Abs",
    "Ceil",
    "Cos",
    "Erf",
    "Exp",
    "Floor",
    "Identity",
    "IsNaN",
    "Neg",
    "Relu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Tanh",
    "Gelu",
    "Elu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Selu",
    "Softsign",
    "Mish",
    "Round",
    "Reciprocal",
    "Atan",
    "Sinh",
    "Dropout",
]
BINARY = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "Equal",
    "Max",
    "Min",
    "Sum",
    "Mean",
]
REDUCTIONS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
]


@pytest.mark.parametrize("op", UNARY)
def test_unary(op):
    check(op, [X], shapes=FREE)


@pytest.mark.parametrize("op", BINARY)
def test_binary(op):
    check(op, [X, Y])
    check(op, [X], constants={1: np.float32([0.5])}, shapes=FREE)


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduction(op, keepdims):
    axes = {1: i64(-1, 1)} if op == "ReduceSum" else {}
    attributes = {} if axes else {"axes": [-1, 1]}
    check(op, [X], constants=axes, shapes=FREE, opset=13, keepdims=keepdims, **attributes)


CASES = {
    "Div of integers truncates": ("Div", [INTS, i64(2)], {}),
    "Mod takes the divisor's sign": ("Mod", [INTS, i64(3)], {}),
    "Mod with fmod": ("Mod", [X, Y], {"fmod": 1}),
    "Pow 2": ("Pow", [X], {"constants": {1: np.float32(2)}}),
    "Pow 3": ("Pow", [X], {"constants": {1: np.float32(3)}}),
    "Pow by a tensor": ("Pow", [np.abs(X), Y], {}),
    "Pow of integers": ("Pow", [np.abs(INTS), i64(2)], {}),
    "BitShift": (
        "BitShift",
        [np.uint8([1, 8, 200])],
        {"constants": {1: np.uint8([3])}, "direction": "RIGHT"},
    ),
    "Log": ("Log", [np.abs(X) + 1], {}),
    "Sqrt": ("Sqrt", [np.abs(X)], {}),
    "Not": ("Not", [X > 0], {}),
    "And": ("And", [X > 0, Y > 0], {}),
    "Where": ("Where", [X > 0, X], {"constants": {2: np.float32(7)}}),
    "Clip": ("Clip", [X], {"constants": {1: np.float32(-0.5), 2: np.float32(0.5)}}),
    "Clip above only": ("Clip", [X, None], {"constants": {2: np.float32(0.5)}}),
    "Clip by attributes": ("Clip", [X], {"min": -0.5, "max": 0.5, "opset": 6}),
    "Cast to int": ("Cast", [X * 3], {"to": 7}),
    "Cast to bool": ("Cast", [np.float32([0, 0.5, -2, np.nan])], {"to": 9}),
    "IsInf": ("IsInf", [np.float32([1, np.inf, -np.inf, np.nan])], {"detect_negative": 0}),
    "Cast bool to float": ("Cast", [X > 0], {"to": 1}),
    "CastLike": ("CastLike", [INTS, X], {}),
    "Gelu tanh": ("Gelu", [X], {"approximate": "tanh"}),
    "MatMul": ("MatMul", [X, floats(4, 5)], {"shapes": {0: ("n", "c", 4)}}),
    "MatMul batched": (
        "MatMul",
        [X, floats(2, 4, 5)],
        {"shapes": {0: ("n", 3, 4), 1: ("n", 4, 5)}},
    ),
    "MatMul of vectors": ("MatMul", [floats(4), floats(4)], {}),
    "Gemm": ("Gemm", [floats(4, 3), floats(5, 4), floats(5)], {"transA": 1, "transB": 1}),
    "Gemm scaled": ("Gemm", [floats(3, 4), floats(4, 5), floats(5)], {"alpha": 0.5, "beta": 2.0}),
    "Gemm without C": ("Gemm", [floats(3, 4), floats(4, 5)], {"shapes": {0: ("n", 4)}}),
    "Conv": ("Conv", [IMAGE], {"constants": {1: WEIGHT, 2: floats(4)}, "pads": [1, 0, 2, 1]}),
    "Conv strided, free sizes": (
        "Conv",
        [IMAGE],
        {"constants": {1: WEIGHT}, "strides": [2, 2], "shapes": {0: ("n", 3, "h", "w")}},
    ),
    "Conv dilated": ("Conv", [IMAGE, WEIGHT], {"dilations": [2, 1]}),
    "Conv grouped": ("Conv", [IMAGE, floats(6, 1, 3, 3)], {"group": 3}),
    "Conv same upper": ("Conv", [IMAGE, WEIGHT], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "Conv same lower": ("Conv", [IMAGE, WEIGHT], {"auto_pad": "SAME_LOWER"}),
    "Conv 1d": ("Conv", [floats(2, 3, 9), floats(4, 3, 3)], {"pads": [1, 1]}),
    "Conv 3d": ("Conv", [floats(1, 2, 4, 5, 6), floats(3, 2, 2, 2, 2)], {}),
    "ConvTranspose": (
        "ConvTranspose",
        [IMAGE, floats(3, 2, 3, 3)],
        {"strides": [2, 2], "pads": [1, 1, 0, 1], "output_padding": [1, 0]},
    ),
    "ConvTranspose dilated": (
        "ConvTranspose",
        [IMAGE, floats(3, 2, 3, 2)],
        {"strides": [2, 1], "dilations": [2, 3], "pads": [1, 0, 2, 1]},
    ),
    "ConvTranspose 1d": ("ConvTranspose", [floats(1, 3, 5), floats(3, 2, 3)], {"strides": [2]}),
    "MaxPool": (
        "MaxPool",
        [IMAGE],
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    ),
    "MaxPool ceil": (
        "MaxPool",
        [IMAGE],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    ),
    "AveragePool": ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "AveragePool counting pads": (
        "AveragePool",
        [IMAGE],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "GlobalAveragePool": ("GlobalAveragePool", [IMAGE], {"shapes": {0: ("n", 3, "h", "w")}}),
    "AveragePool of everything": ("AveragePool", [IMAGE], {"kernel_shape": [7, 6]}),
    "GlobalMaxPool": ("GlobalMaxPool", [IMAGE], {}),
    "BatchNormalization": (
        "BatchNormalization",
        [IMAGE],
        {"constants": {1: floats(3), 2: floats(3), 3: floats(3), 4: np.abs(floats(3))}},
    ),
    "LayerNormalization": (
        "LayerNormalization",
        [X, floats(4), floats(4)],
        {"shapes": {0: ("n", "c", 4)}},
    ),
    "LayerNormalization without offset": ("LayerNormalization", [X, Y], {"axis": 1}),
    "InstanceNormalization": ("InstanceNormalization", [IMAGE, floats(3), floats(3)], {}),
    "GroupNormalization": (
        "GroupNormalization",
        [floats(2, 4, 5), floats(4), floats(4)],
        {"num_groups": 2, "opset": 21},
    ),
    "RMSNormalization": ("RMSNormalization", [X, floats(4)], {"opset": 23}),
    "Softmax": ("Softmax", [X], {"axis": 1, "shapes": FREE}),
    "LogSoftmax": ("LogSoftmax", [X], {"shapes": FREE}),
    "ArgMax": ("ArgMax", [X], {"axis": 1, "keepdims": 0, "shapes": FREE}),
    "ArgMin": ("ArgMin", [X], {"axis": -1}),
    "TopK": ("TopK", [X], {"constants": {1: i64(2)}, "outputs": 2}),
    "TopK smallest": (
        "TopK",
        [X],
        {"constants": {1: i64(2)}, "outputs": 2, "largest": 0, "axis": 1},
    ),
    "CumSum": ("CumSum", [X], {"constants": {1: i64(1).reshape(())}}),
    "CumSum reverse, exclusive": (
        "CumSum",
        [X],
        {"constants": {1: i64(2).reshape(())}, "reverse": 1, "exclusive": 1},
    ),
    "Reshape": ("Reshape", [X], {"constants": {1: i64(0, -1)}, "shapes": {0: ("n", 3, "w")}}),
    "Flatten": ("Flatten", [X], {"axis": 2, "shapes": FREE}),
    "Squeeze": ("Squeeze", [X[:1]], {"constants": {1: i64(0)}}),
    "Squeeze by attribute": ("Squeeze", [X[:1]], {"axes": [0], "opset": 11}),
    "Unsqueeze": ("Unsqueeze", [X], {"constants": {1: i64(0, -1)}, "shapes": FREE}),
    "Transpose": ("Transpose", [X], {"perm": [2, 0, 1], "shapes": FREE}),
    "Transpose all": ("Transpose", [X], {}),
    "Expand": (
        "Expand",
        [X[:, :1]],
        {"constants": {1: i64(2, 1, 3, 1)}, "shapes": {0: ("n", 1, 4)}},
    ),
    "Tile": ("Tile", [X], {"constants": {1: i64(2, 1, 3)}, "shapes": FREE}),
    "Concat": ("Concat", [X, X], {"axis": 1, "shapes": {0: ("n", "a", 4), 1: ("n", "b", 4)}}),
    "Concat of one": ("Concat", [X], {"axis": 0}),
    "Split": (
        "Split",
        [X],
        {"constants": {1: i64(1, 3)}, "axis": -1, "outputs": 2, "shapes": {0: ("n", 3, 4)}},
    ),
    "Split evenly": ("Split", [X], {"axis": 2, "outputs": 2, "num_outputs": 2}),
    "Slice": (
        "Slice",
        [X],
        {"constants": {1: i64(0, -3), 2: i64(1, 2**62), 3: i64(0, 2)}, "shapes": {0: (2, "c", 4)}},
    ),
    "Slice with steps": ("Slice", [X], {"constants": {1: i64(1), 2: i64(4), 3: i64(2), 4: i64(2)}}),
    "Slice reversed": (
        "Slice",
        [X],
        {"constants": {1: i64(-1), 2: i64(-(2**62)), 3: i64(2), 4: i64(-1)}},
    ),
    "Slice empty": ("Slice", [X], {"constants": {1: i64(3), 2: i64(1), 3: i64(2)}}),
    "Slice by attributes": ("Slice", [X], {"starts": [1], "ends": [3], "axes": [2], "opset": 9}),
    "Mod of floats": ("Mod", [X, Y], {"opset": 27}),
    "SpaceToDepth CRD": (
        "SpaceToDepth",
        [floats(2, 3, 4, 6)],
        {"blocksize": 2, "mode": "CRD", "opset": 28},
    ),
    "LayerNormalization with statistics": ("LayerNormalization", [X, Y], {"axis": 1, "outputs": 3}),
    "RMSNormalization of everything": ("RMSNormalization", [X, X], {"axis": 0, "opset": 23}),
    "Pad": (
        "Pad",
        [X],
        {"constants": {1: i64(0, 1, 0, 2, 0, 1), 2: np.float32(3)}, "shapes": FREE},
    ),
    "Pad reflect": ("Pad", [X], {"constants": {1: i64(0, 1, 2, 0, 1, 0)}, "mode": "reflect"}),
    "Pad edge": ("Pad", [X], {"constants": {1: i64(0, 1, 2, 0, 1, 0)}, "mode": "edge"}),
    "DepthToSpace": (
        "DepthToSpace",
        [floats(2, 8, 2, 3)],
        {"blocksize": 2, "shapes": {0: ("n", 8, "h", "w")}},
    ),
    "DepthToSpace CRD": ("DepthToSpace", [floats(2, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}),
    "SpaceToDepth": ("SpaceToDepth", [floats(2, 3, 4, 6)], {"blocksize": 2}),
    "Gather": ("Gather", [X, i64(2, -1, 0)], {"axis": 1}),
    "Gather of known rows": ("Gather", [X], {"constants": {1: i64(-1, 0)}, "axis": 1}),
    "Gather of one row": (
        "Gather",
        [X],
        {"constants": {1: i64(-1).reshape(())}, "axis": 1, "shapes": {0: ("n", 3, "w")}},
    ),
    "GatherElements": ("GatherElements", [X, np.array([[[0, -1]] * 3, [[1, 2]] * 3])], {"axis": 2}),
    "GatherND": ("GatherND", [X, np.array([[0, 1], [1, 2]])], {}),
    "GatherND batched": ("GatherND", [X, np.array([[1], [2]])], {"batch_dims": 1}),
    "ScatterElements": (
        "ScatterElements",
        [X, np.array([[[0, -1]]]), floats(1, 1, 2)],
        {"axis": 2},
    ),
    "ScatterElements add": (
        "ScatterElements",
        [X, np.array([[[1, 1]]]), floats(1, 1, 2)],
        {"axis": 2, "reduction": "add"},
    ),
    "ScatterND": ("ScatterND", [X, np.array([[0, 1], [1, 2]]), floats(2, 4)], {}),
    "OneHot": (
        "OneHot",
        [i64(1, -1, 5)],
        {"constants": {1: i64(3).reshape(()), 2: np.float32([0, 2])}, "axis": 0},
    ),
    "Trilu": ("Trilu", [X], {"constants": {1: i64(1).reshape(())}, "upper": 1}),
    "Trilu lower": ("Trilu", [X], {"upper": 0, "shapes": FREE}),
    "Resize nearest": (
        "Resize",
        [IMAGE, None],
        {
            "constants": {2: np.float32([1, 1, 2, 2])},
            "shapes": {0: ("n", 3, "h", "w")},
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    ),
    "Resize 1d": (
        "Resize",
        [floats(1, 2, 5), None],
        {"constants": {2: np.float32([1, 1, 3])}, "mode": "linear"},
    ),
    "Resize linear": (
        "Resize",
        [IMAGE, None, None],
        {"constants": {3: i64(2, 3, 10, 9)}, "mode": "linear"},
    ),
    "RNN": (
        "RNN",
        [floats(3, 2, 4), floats(1, 5, 4), floats(1, 5, 5)],
        {"hidden_size": 5, "outputs": 2},
    ),
    "LSTM": (
        "LSTM",
        [floats(3, 2, 4), floats(1, 20, 4), floats(1, 20, 5), floats(1, 40)],
        {"hidden_size": 5, "outputs": 3, "shapes": {0: (3, "n", 4)}},
    ),
    "GRU": (
        "GRU",
        [floats(3, 2, 4), floats(1, 15, 4), floats(1, 15, 5), floats(1, 30)],
        {"hidden_size": 5, "outputs": 2},
    ),
    "GRU linear before reset": (
        "GRU",
        [floats(3, 2, 4), floats(1, 15, 4), floats(1, 15, 5), floats(1, 30)],
        {"hidden_size": 5, "outputs": 2, "linear_before_reset": 1},
    ),
    "Einsum, by TVM's converter": ("Einsum", [Y, floats(4, 5)], {"equation": "ij,jk->ik"}),
    "Acos of float16, which LLVM has not": ("Acos", [np.float16([0.5, -1])], {}),
    "Celu, of an older operator set than the model": ("Celu", [X], {"opset": 20, "alpha": 2.0}),
    "Swish, by its function body": ("Swish", [X], {"opset": 24}),
}


@pytest.mark.parametrize("name", CASES)
def test_operator(name):
    op, arrays, options = CASES[name]
    check(op, arrays, **options)


def check(op, arrays, **options):
    proto, feeds = one_node(op, arrays, **options)
    assert_matches(load(proto), proto, feeds)


def test_softmax_over_all_axes_from_one_on():
    """Before operator set 13; onnx.reference knows only the later meaning."""
    proto, feeds = one_node("Softmax", [X], opset=11, axis=1)
    (got,) = run(load(proto), feeds)
    powers = np.exp(X)
    np.testing.assert_allclose(got, powers / powers.sum((1, 2), keepdims=True), rtol=1e-5)


def test_average_over_a_window_larger_than_the_image():
    """The mean of what there is, as ONNX Runtime has it; onnx.reference averages something else."""
    proto, feeds = one_node(
        "AveragePool", [IMAGE], kernel_shape=[9, 9], strides=[9, 9], ceil_mode=1
    )
    (got,) = run(load(proto), feeds)
    np.testing.assert_allclose(got, IMAGE.mean((2, 3), keepdims=True), rtol=1e-4, atol=1e-6)


def test_negative_padding_cuts_off():
    proto, feeds = one_node("Pad", [X], constants={1: i64(0, -1, 0, 0, 1, -2)})
    (got,) = run(load(proto), feeds)
    np.testing.assert_array_equal(got, np.pad(X[:, 1:, :-2], [(0, 0), (0, 1), (0, 0)]))


def test_nan_and_negative_zero_survive():
    values = np.float32([np.nan, -0.0, np.inf, -np.inf])
    proto, feeds = one_node("Identity", [values])
    (got,) = run(load(proto), feeds)
    np.testing.assert_array_equal(got.view(np.int32), values.view(np.int32))
