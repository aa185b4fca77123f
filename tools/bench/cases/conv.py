"""Convolutions with bias and ReLU: every kind of layer of five networks, and a few more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from .case import Case, Graph, node, random, weight


@dataclass(frozen=True)
class Layer:
    """Channels in and out, kernel edge, size of the input without channels, and the rest."""

    net: str
    cin: int
    cout: int
    kernel: int
    size: tuple[int, ...]
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    pad: int | None = None
    transposed: bool = False

    @property
    def padding(self) -> int:
        """Per side; by default what keeps the size at stride 1 for odd kernels."""
        same = self.dilation * (self.kernel - 1) // 2
        return same if self.pad is None else self.pad

    @property
    def kind(self) -> str:
        """The family of the table that the layer stands in."""
        if self.transposed:
            return "convtranspose"
        if self.groups == self.cin:
            return "depthwise"
        return "conv1x1" if self.kernel == 1 else "conv"

    @property
    def name(self) -> str:
        """``conv/resnet50:64-64,k3,56x56``; s2 is a stride, g32 groups, d2 a dilation."""
        parts = [f"{self.cin}-{self.cout}", f"k{self.kernel}", "x".join(map(str, self.size))]
        parts += [f"s{self.stride}"] * (self.stride > 1)
        parts += [f"g{self.groups}"] * (1 < self.groups < self.cin)
        parts += [f"d{self.dilation}"] * (self.dilation > 1)
        return f"{self.kind}/{self.net}:{','.join(parts)}"

    @property
    def out_size(self) -> tuple[int, ...]:
        """The size of the output without channels."""
        if self.transposed:
            return tuple((n - 1) * self.stride - 2 * self.padding + self.kernel for n in self.size)
        reach = self.dilation * (self.kernel - 1) + 1
        return tuple((n + 2 * self.padding - reach) // self.stride + 1 for n in self.size)

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        positions = self.size if self.transposed else self.out_size
        window = self.kernel ** len(self.size)
        return 2.0 * prod(positions) * window * self.cin * self.cout / self.groups


def _square(net: str, cin: int, cout: int, kernel: int, edge: int, **rest: Any) -> Layer:
    return Layer(net, cin, cout, kernel, (edge, edge), **rest)


def _depthwise(net: str, channels: int, kernel: int, edge: int, stride: int = 1) -> Layer:
    return _square(net, channels, channels, kernel, edge, stride=stride, groups=channels)


RESNET50 = (
    _square("resnet50", 3, 64, 7, 224, stride=2),
    _square("resnet50", 64, 64, 1, 56),
    _square("resnet50", 64, 64, 3, 56),
    _square("resnet50", 64, 256, 1, 56),
    _square("resnet50", 256, 64, 1, 56),
    _square("resnet50", 256, 128, 1, 56),
    _square("resnet50", 128, 128, 3, 56, stride=2),
    _square("resnet50", 256, 512, 1, 56, stride=2),
    _square("resnet50", 128, 128, 3, 28),
    _square("resnet50", 512, 128, 1, 28),
    _square("resnet50", 256, 256, 3, 28, stride=2),
    _square("resnet50", 256, 256, 3, 14),
    _square("resnet50", 256, 1024, 1, 14),
    _square("resnet50", 1024, 256, 1, 14),
    _square("resnet50", 512, 512, 3, 7),
    _square("resnet50", 512, 2048, 1, 7),
    _square("resnet50", 2048, 512, 1, 7),
)
MOBILENET = (
    _square("mobilenet_v2", 3, 32, 3, 224, stride=2),
    _depthwise("mobilenet_v2", 32, 3, 112),
    _square("mobilenet_v2", 32, 16, 1, 112),
    _square("mobilenet_v2", 16, 96, 1, 112),
    _depthwise("mobilenet_v2", 96, 3, 112, stride=2),
    _depthwise("mobilenet_v2", 144, 3, 56),
    _square("mobilenet_v2", 144, 24, 1, 56),
    _depthwise("mobilenet_v2", 384, 3, 14),
    _square("mobilenet_v2", 64, 384, 1, 14),
    _square("mobilenet_v2", 384, 96, 1, 14),
    _depthwise("mobilenet_v2", 576, 3, 14, stride=2),
    _depthwise("mobilenet_v2", 960, 3, 7),
    _square("mobilenet_v2", 960, 320, 1, 7),
    _square("mobilenet_v2", 320, 1280, 1, 7),
)
EFFICIENTNET = (
    _depthwise("efficientnet_b0", 144, 5, 56, stride=2),
    _depthwise("efficientnet_b0", 240, 5, 28),
    _depthwise("efficientnet_b0", 672, 5, 14),
    _depthwise("efficientnet_b0", 1152, 5, 7),
    _square("efficientnet_b0", 672, 28, 1, 1),
)
CONVNEXT = (
    _square("convnext", 3, 96, 4, 224, stride=4, pad=0),
    _depthwise("convnext", 96, 7, 56),
    _square("convnext", 96, 192, 2, 56, stride=2, pad=0),
    _depthwise("convnext", 384, 7, 14),
    _depthwise("convnext", 768, 7, 7),
)
UNET = (
    _square("unet", 3, 64, 3, 128),
    _square("unet", 64, 64, 3, 128),
    _square("unet", 256, 128, 3, 64),
    _square("unet", 512, 512, 3, 16),
    _square("unet", 128, 64, 2, 64, stride=2, pad=0, transposed=True),
    _square("unet", 64, 2, 1, 128),
)
OTHERS = (
    _square("resnext50", 128, 128, 3, 56, groups=32),
    _square("deeplab", 256, 256, 3, 32, dilation=2),
    Layer("whisper", 80, 384, 3, (3000,)),
    Layer("whisper", 384, 384, 3, (3000,), stride=2),
    Layer("wav2vec2", 512, 512, 3, (3199,), stride=2, pad=0),
    Layer("conformer", 256, 256, 31, (500,), groups=256),
    Layer("video", 16, 32, 3, (16, 56, 56)),
    Layer("resnet3d", 64, 64, 3, (8, 28, 28)),
    Layer("unet3d", 32, 64, 3, (32, 32, 32), stride=2),
)
TRANSPOSED = (
    _square("dcgan", 256, 128, 4, 16, stride=2, pad=1, transposed=True),
    _square("segment", 64, 32, 3, 64, stride=2, pad=1, transposed=True),
    _square("fcn", 21, 21, 16, 32, stride=8, pad=4, transposed=True),
    Layer("hifigan", 256, 128, 16, (256,), stride=8, pad=4, transposed=True),
    Layer("unet3d", 64, 32, 2, (16, 16, 16), stride=2, pad=0, transposed=True),
)
LAYERS = RESNET50 + MOBILENET + EFFICIENTNET + CONVNEXT + UNET + OTHERS + TRANSPOSED


def cases() -> list[Case]:
    """One case for each layer; batch 1, NCHW as ONNX has it."""
    return [
        Case(
            layer.name,
            partial(_graph, layer),
            flops=layer.flops,
            torch=partial(_torch, layer),
            interior=True,
        )
        for layer in LAYERS
    ]


def _graph(layer: Layer) -> Graph:
    rank = len(layer.size)
    window = (layer.kernel,) * rank
    fan_in = layer.cin // layer.groups * layer.kernel**rank
    rows, columns = layer.cout, layer.cin // layer.groups
    if layer.transposed:
        rows, columns = layer.cin, layer.cout // layer.groups
    attributes: dict[str, Any] = {
        "kernel_shape": window,
        "strides": [layer.stride] * rank,
        "pads": [layer.padding] * (2 * rank),
        "dilations": [layer.dilation] * rank,
        "group": layer.groups,
    }
    op = "ConvTranspose" if layer.transposed else "Conv"
    nodes = [node(op, "x w b", "y", **attributes), node("Relu", "y", "z")]
    weights = {"w": weight(rows, columns, *window, fan_in=fan_in), "b": random(layer.cout, seed=2)}
    return Graph(nodes, {"x": random(1, layer.cin, *layer.size)}, "z", weights)


def _torch(layer: Layer, torch: Any, t: Any) -> Callable[[], object]:
    """oneDNN on channels-last tensors, its fastest layout, with nothing to convert at the edges."""
    rank = len(layer.size)
    last = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}[rank]
    x, w = (t[name].contiguous(memory_format=last) for name in "xw")
    if layer.transposed:
        run = getattr(torch.nn.functional, f"conv_transpose{rank}d")
        return lambda: run(x, w, t["b"], layer.stride, layer.padding).relu_()
    run = getattr(torch.nn.functional, f"conv{rank}d")
    last_arguments = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return lambda: run(x, w, t["b"], *last_arguments).relu_()
