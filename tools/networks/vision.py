"""Networks of torchvision."""

from __future__ import annotations

from typing import Any

import torch

_library = torch.library.Library("torchvision", "FRAGMENT")


def _nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Boxes by score, less those that overlap a better one by more than `threshold`."""
    left, area = list(scores.argsort(descending=True)), (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = []
    while left:
        kept.append(left.pop(0))
        best = boxes[kept[-1]]
        low, high = torch.maximum(boxes[:, :2], best[:2]), torch.minimum(boxes[:, 2:], best[2:])
        shared = (high - low).clamp(min=0).prod(1)
        overlap = shared / (area + area[kept[-1]] - shared)
        left = [i for i in left if overlap[i] <= threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)


try:
    import torchvision
except RuntimeError:  # its own library does not load
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.impl("nms", _nms, "CPU")
    import torchvision  # asks for the operators above


def classifier(name: str, size: int, free: str = "batch", **options: Any) -> Any:
    """A network of torchvision on pictures of `size`; `free` names the dims that stay free."""
    named = {"batch": 0, "height": 2, "width": 3}
    dims = {"x": {named[part]: part for part in free.split()}}
    kind = torchvision.models
    for part in name.split("."):
        kind = getattr(kind, part)
    made = kind(**options).eval()
    settle(made, torch.randn(8, 3, size, size))
    return made, {"x": torch.randn(2, 3, size, size)}, dims


@torch.no_grad()
def settle(network: torch.nn.Module, pictures: torch.Tensor) -> None:
    """Statistics as of a trained network: without, signals fade and all pictures are alike."""
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    network(pictures)
    network.eval()


def detector(name: str, size: int, **options: Any) -> Any:
    """Boxes, scores and labels of one picture, after its non-maximum suppression."""

    class Detector(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            make = getattr(torchvision.models.detection, name)
            self.inner = make(weights=None, weights_backbone=None, **options).eval()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = self.inner([x])
            found = found[1] if isinstance(found, tuple) else found
            return found[0]["boxes"], found[0]["scores"], found[0]["labels"]

    return Detector(), {"x": torch.rand(3, size, size)}, {"x": {}}


NETWORKS = {
    "regnet": lambda: classifier("regnet_y_400mf", 64, "batch height width"),
    "inception_v3": lambda: classifier(
        "inception_v3", 139, transform_input=True, init_weights=False
    ),
    "googlenet": lambda: classifier("googlenet", 96, aux_logits=False, init_weights=False),
    "shufflenet_v2": lambda: classifier("shufflenet_v2_x0_5", 64, "batch height width"),
    "mobilenet_v3": lambda: classifier("mobilenet_v3_small", 64, "batch height width"),
    "maxvit": lambda: classifier(
        "maxvit.MaxVit", 64,
        input_size=(64, 64), stem_channels=16, partition_size=2, block_channels=[16, 32],
        block_layers=[1, 1], head_dim=8, stochastic_depth_prob=0.0,
    ),
    "deeplab": lambda: classifier(
        "segmentation.deeplabv3_mobilenet_v3_large", 96, "batch height width", weights_backbone=None
    ),
    "ssdlite": lambda: detector("ssdlite320_mobilenet_v3_large", 320, num_classes=5),
    "retinanet": lambda: detector(
        "retinanet_resnet50_fpn", 128, num_classes=5, min_size=128, max_size=128
    ),
}  # fmt: skip
