"""What ONNX Runtime makes of a network: its optimizer's fusions, and its quantizer's integers.

python -m tools.networks.optimized FOLDER 'bert*'    # after `tools.networks FOLDER`
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime import quantization as q
from onnxruntime.transformers.optimizer import optimize_model

from .__main__ import parse


def fused(kind: str) -> Callable[[Path, Path], None]:
    """Attention, embeddings and normalizations of a transformer as operators of com.microsoft."""

    def write(source: Path, path: Path) -> None:
        model = optimize_model(str(source), kind, num_heads=4, hidden_size=64, opt_level=1)
        model.save_model_to_file(str(path))

    return write


def session(source: Path, path: Path) -> None:
    """What a session on a CPU runs, before it changes layouts."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def dynamic(source: Path, path: Path) -> None:
    """Weights in bytes, and data in bytes of the range that each run finds."""
    known = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # behind operators of com.microsoft
    q.quantize_dynamic(source, path, weight_type=q.QuantType.QInt8, extra_options=known)


def static(form: q.QuantFormat) -> Callable[[Path, Path], None]:
    """Weights and data in bytes, ranges from random pictures."""

    def write(source: Path, path: Path) -> None:
        ready = path.with_suffix(".ready.onnx")
        q.quant_pre_process(source, ready, skip_symbolic_shape=True)
        q.quantize_static(
            ready, path, _Pictures(ready), quant_format=form, per_channel=True,
            activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
        )  # fmt: skip
        ready.unlink()

    return write


class _Pictures(q.CalibrationDataReader):
    def __init__(self, path: Path) -> None:
        value = onnx.load(path).graph.input[0]
        rng = np.random.default_rng(0)
        size = [dim.dim_value or 64 for dim in value.type.tensor_type.shape.dim[2:]]
        shapes = [(1, 3, *size)] * 4
        self.left = [{value.name: rng.standard_normal(s).astype(np.float32)} for s in shapes]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


MADE: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "bert.fused": ("bert.legacy", fused("bert")),
    "gpt2.fused": ("gpt2.legacy", fused("gpt2")),
    "vit.fused": ("vit.legacy", fused("vit")),
    "bert.dynamic": ("bert.fused", dynamic),
    "distilbert.fused": ("distilbert.legacy", fused("bert")),
    "bart_decoder.fused": ("bart_decoder.legacy", fused("bart")),
    "phi.fused": ("phi.legacy", fused("gpt2")),
    "mistral.fused": ("mistral.legacy", fused("gpt2")),
    "mistral.session": ("mistral.legacy", session),
    "swinv2.session": ("swinv2.legacy", session),
    "regnet.session": ("regnet.legacy", session),
    "distilbert.dynamic": ("distilbert.legacy", dynamic),
    "shufflenet_v2.qoperator": ("shufflenet_v2.legacy", static(q.QuantFormat.QOperator)),
    "mobilenet_v3.qoperator": ("mobilenet_v3.legacy", static(q.QuantFormat.QOperator)),
    "regnet.qdq": ("regnet.legacy", static(q.QuantFormat.QDQ)),
}


def main() -> int:
    args = parse()
    folder, pattern = args.folder, args.pattern
    failed = 0
    for name, (source, write) in MADE.items():
        if not fnmatch.fnmatch(name, pattern):
            continue
        path = folder / f"{name}.onnx"
        try:
            write(folder / f"{source}.onnx", path)
        except Exception as error:  # of the optimizer; the others go on
            failed += 1
            print(f"{name}: {type(error).__name__}: {error}")
            continue
        own = {n.op_type for n in onnx.load(path).graph.node if n.domain == "com.microsoft"}
        print(f"{name}: {', '.join(sorted(own)) or 'done'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
