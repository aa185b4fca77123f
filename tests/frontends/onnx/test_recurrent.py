"""Recurrent networks against ONNX Runtime: every option, free sizes, sequences of other lengths."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.frontends.onnx.stock import one_node, run
from tvmext.errors import UnsupportedError
from tvmext.frontends import load

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def arrays(op, steps, batch, directions, *, lengths=None, size=3, hidden=5, states=True):
    """The inputs of a node in order."""
    rng = np.random.default_rng([steps, batch, directions])

    def floats(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    width = GATES[op] * hidden
    found = [
        floats(steps, batch, size),
        floats(directions, width, size),
        floats(directions, width, hidden),
        floats(directions, 2 * width),
        lengths,
        floats(directions, batch, hidden) if states else None,
    ]
    if op == "LSTM":
        found.append(floats(directions, batch, hidden) if states else None)
        found.append(floats(directions, 3 * hidden))
    return found


def check(op, inputs, **options):
    options = {"hidden_size": 5, "outputs": 3 if op == "LSTM" else 2, "opset": 14, **options}
    proto, feeds = one_node(op, inputs, **options)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    expected = session.run(None, feeds)
    for got, want in zip(run(load(proto), feeds), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_lengths_states_and_free_sizes(op, direction):
    inputs = arrays(op, 4, 3, 2 if direction[0] == "b" else 1, lengths=np.int32([4, 1, 2]))
    check(op, inputs, direction=direction, shapes={0: ("t", "n", 3), 4: ("n",)})


@pytest.mark.parametrize(
    "options", [{"clip": 0.3}, {"input_forget": 1}, {"linear_before_reset": 1}]
)
def test_options(options):
    op = "GRU" if "linear_before_reset" in options else "LSTM"
    check(op, arrays(op, 3, 2, 1), **options)


MIXED = {
    "RNN": (["HardSigmoid", "LeakyRelu"], [0.3, 0.2], [0.4]),
    "GRU": (["Softsign", "Elu", "Affine", "ThresholdedRelu"], [0.5, 0.5, 0.1], [0.25]),
    "LSTM": (["Sigmoid", "Relu", "Softplus", "ScaledTanh", "Tanh", "Softsign"], [0.7], [0.9]),
}
"""Per cell the functions of two directions, and the numbers of those that take any."""


@pytest.mark.parametrize("op", MIXED)
def test_functions(op):
    names, alphas, betas = MIXED[op]
    numbers = {"activation_alpha": alphas, "activation_beta": betas}
    inputs = arrays(op, 3, 2, 2, states=False)
    check(op, inputs, direction="bidirectional", activations=names, **numbers)


def test_batch_first():
    """ONNX Runtime has no layout 1: it is layout 0 with the first dims exchanged."""
    inputs = arrays("LSTM", 4, 3, 2)
    options = {"hidden_size": 5, "outputs": 3, "direction": "bidirectional"}
    first, feeds = one_node("LSTM", inputs, **options)
    expected = run(load(first), feeds)
    for k in (0, 5, 6):
        inputs[k] = np.ascontiguousarray(inputs[k].swapaxes(0, 1))
    proto, feeds = one_node("LSTM", inputs, layout=1, **options)
    y, *states = run(load(proto), feeds)
    np.testing.assert_allclose(y, expected[0].transpose(2, 0, 1, 3), rtol=1e-5)
    for got, want in zip(states, expected[1:], strict=True):
        np.testing.assert_allclose(got, want.swapaxes(0, 1), rtol=1e-5)


def test_an_unknown_function_is_refused():
    inputs = arrays("RNN", 3, 2, 1)
    proto, _ = one_node("RNN", inputs, hidden_size=5, activations=["Cosine"])
    with pytest.raises(UnsupportedError, match="activations cosine"):
        load(proto)
