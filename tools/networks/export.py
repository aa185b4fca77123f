"""One network with random weights to one ONNX file, by either of torch's exporters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as t

from . import vision

Built = tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, dict[int, str]]]
"""A module, its inputs by the names of its parameters, and which of their dims are free."""

SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "vocab_size": 200,
}  # fmt: skip
TOKENS = {0: "batch", 1: "seq"}


class Only(torch.nn.Module):
    """The named outputs of a network, called without a cache."""

    def __init__(self, inner: torch.nn.Module, *outputs: str, **options: Any) -> None:
        super().__init__()
        self.inner, self.outputs, self.options = inner.eval(), outputs, options
        self.names: list[str] = []

    def forward(self, *args: torch.Tensor) -> Any:
        named = dict(zip(self.names, args))
        found = self.inner(**named, **self.options)
        return tuple(found[name] for name in self.outputs)


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(1, 200, shape)


def encoder(model: str, output: str = "last_hidden_state", **config: Any) -> Built:
    """Of tokens and their mask."""
    made = getattr(t, f"{model}Config")(**(SMALL | config))
    inputs = {"input_ids": ids(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    network = getattr(t, f"{model}Model")(made)
    return Only(network, output), inputs, dict.fromkeys(inputs, TOKENS)


def decoder(model: str, **config: Any) -> Built:
    """A causal language model without a cache."""
    made = getattr(t, f"{model}Config")(**(SMALL | config))
    network = getattr(t, f"{model}ForCausalLM")(made)
    inputs = {"input_ids": ids(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    return Only(network, "logits", use_cache=False), inputs, dict.fromkeys(inputs, TOKENS)


def seq2seq(model: str, **config: Any) -> Built:
    """The decoder of an encoder-decoder network, which reads the encoder's states."""
    made = getattr(t, f"{model}Config")(**config)
    network = getattr(t, f"{model}Model")(made).decoder
    inputs = {"input_ids": ids(2, 7), "encoder_hidden_states": torch.randn(2, 9, made.d_model)}
    dims = {"input_ids": TOKENS, "encoder_hidden_states": {0: "batch", 1: "source"}}
    return Only(network, "last_hidden_state", use_cache=False), inputs, dims


def image(model: str, output: str, sizes: tuple[int, int], free: str, **config: Any) -> Built:
    """Of one picture; `free` names the dims that stay free."""
    made = getattr(t, f"{model.partition('For')[0].removesuffix('Model')}Config")(**config)
    inputs = {"pixel_values": torch.randn(2, 3, *sizes)}
    named = {"batch": 0, "height": 2, "width": 3}
    dims = {named[name]: name for name in free.split()}
    return Only(getattr(t, model)(made), *output.split()), inputs, {"pixel_values": dims}


def audio(model: str, **config: Any) -> Built:
    made = getattr(t, f"{model}Config")(**(SMALL | config))
    inputs = {"input_values": torch.randn(2, 4000)}
    network = getattr(t, f"{model}Model")(made)
    return Only(network, "last_hidden_state"), inputs, {"input_values": {0: "batch", 1: "samples"}}


GROUPED = {"num_key_value_heads": 2}
WHISPER = {
    "vocab_size": 200, "d_model": 64, "encoder_layers": 1, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128, "pad_token_id": 0, "decoder_start_token_id": 1, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
DETR = {
    "d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_queries": 9,
    "use_pretrained_backbone": False,
}  # fmt: skip
AUDIO = {
    "conv_dim": (32, 32, 32), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip

NETWORKS: dict[str, Callable[[], Built]] = {
    "bert": lambda: encoder("Bert", attn_implementation="eager"),
    "gpt2": lambda: decoder("GPT2", n_embd=64, n_layer=2, n_head=4, attn_implementation="eager"),
    "vit": lambda: image(
        "ViTModel", "last_hidden_state", (64, 64), "batch",
        **SMALL, image_size=64, attn_implementation="eager",
    ),
    "distilbert": lambda: encoder("DistilBert", dim=64, n_layers=2, n_heads=4, hidden_dim=128),
    "roberta": lambda: encoder("Roberta", type_vocab_size=1),
    "albert": lambda: encoder("Albert", embedding_size=32),
    "deberta_v2": lambda: encoder(
        "DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8
    ),
    "mpnet": lambda: encoder("MPNet"),
    "modernbert": lambda: encoder("ModernBert", pad_token_id=0, global_attn_every_n_layers=2),
    "phi": lambda: decoder("Phi", partial_rotary_factor=0.5),
    "gemma2": lambda: decoder("Gemma2", head_dim=16, sliding_window=4, **GROUPED),
    "mistral": lambda: decoder("Mistral", sliding_window=5, **GROUPED),
    "qwen3": lambda: decoder("Qwen3", head_dim=16, **GROUPED),
    "bloom": lambda: decoder("Bloom", n_head=4, n_layer=2),
    "opt": lambda: decoder("OPT", ffn_dim=128, word_embed_proj_dim=64),
    "whisper_decoder": lambda: seq2seq("Whisper", **WHISPER),
    "bart_decoder": lambda: seq2seq("Bart", **WHISPER),
    "detr": lambda: image(
        "DetrForObjectDetection", "logits pred_boxes", (96, 128), "batch", **DETR
    ),
    "yolos": lambda: image(
        "YolosForObjectDetection", "logits pred_boxes", (64, 96), "batch",
        **SMALL, image_size=[64, 96], num_detection_tokens=9,
    ),
    "convnext": lambda: image(
        "ConvNextModel", "last_hidden_state pooler_output", (64, 96), "batch height width",
        hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1],
    ),
    "dinov2": lambda: image(
        "Dinov2Model", "last_hidden_state", (56, 84), "batch height width",
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=56,
    ),
    "swinv2": lambda: image(
        "Swinv2Model", "last_hidden_state", (64, 64), "batch",
        image_size=64, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4,
    ),
    "wav2vec2": lambda: audio("Wav2Vec2", **AUDIO),
    "hubert": lambda: audio("Hubert", **AUDIO),
    **vision.NETWORKS,
}  # fmt: skip

EXPORTS = [(name, exporter) for name in NETWORKS for exporter in ("legacy", "dynamo")]


def export(name: str, exporter: str, path: Path) -> None:
    """Write one network; ModuleNotFoundError where what it needs is not installed."""
    torch.manual_seed(0)
    module, inputs, dims = NETWORKS[name]()
    module.eval()
    module.names = list(inputs)
    options: dict[str, Any] = {"input_names": list(inputs)}
    if exporter == "legacy":
        options |= {"dynamic_axes": dims, "dynamo": False, "opset_version": 17}
    else:
        auto = torch.export.Dim.AUTO
        free = tuple(dict.fromkeys(dims.get(key, {}), auto) for key in inputs)
        options |= {"dynamic_shapes": (free,), "dynamo": True, "external_data": False}
    with torch.no_grad():
        torch.onnx.export(module, tuple(inputs.values()), str(path), **options)
