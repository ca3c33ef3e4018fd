"""The network: a timm backbone with one linear head per attribute."""

from __future__ import annotations

from typing import cast

import timm
import torch
from torch import Tensor, nn

from tagger.errors import UsageError
from tagger.model.engine import InputSpec
from tagger.schema import Schema


def head_name(attribute: str) -> str:
    """The head's name among the weights: `type` and `values` are good attributes, but names of a module's own."""
    return f"{attribute}_head"


class AttributeNet(nn.Module):
    """uint8 photos in, logits of every attribute and an embedding out.

    Normalisation is part of the network, so that every engine takes the same uint8 pixels.
    """

    pixel_mean: Tensor
    pixel_scale: Tensor

    def __init__(
        self, backbone: str, schema: Schema, input_spec: InputSpec, drop_path: float = 0.0, dropout: float = 0.0
    ) -> None:
        """Builds the network with random weights; raises `UsageError` for a backbone that timm does not know."""
        super().__init__()
        self.frozen: tuple[nn.Module, ...] = ()
        if backbone not in timm.list_models():
            close = ", ".join(timm.list_models(f"*{backbone.split('.')[0][:12]}*")[:5]) or "timm.list_models()"
            raise UsageError(f"timm knows no backbone {backbone!r}; near it: {close}")
        self.backbone = timm.create_model(backbone, num_classes=0, drop_path_rate=drop_path)
        features = cast(int, self.backbone.num_features)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({head_name(a.name): nn.Linear(features, len(a.values)) for a in schema.attributes})
        for head in self.heads.values():
            nn.init.normal_(cast(Tensor, head.weight), std=0.01)
            nn.init.zeros_(cast(Tensor, head.bias))
        mean = torch.tensor(input_spec.mean) * 255.0
        scale = 1.0 / (torch.tensor(input_spec.std) * 255.0)
        self.register_buffer("pixel_mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_scale", scale.view(1, 3, 1, 1), persistent=False)

    def freeze(self, stages: int) -> None:
        """Keep the stem and the first `stages` stages of an EfficientNet as they are, batch statistics included.

        Raises:
            UsageError: the backbone has no such parts.
        """
        if not stages:
            return
        blocks = getattr(self.backbone, "blocks", None)
        if blocks is None or not hasattr(self.backbone, "conv_stem") or stages >= len(blocks):
            raise UsageError(f"cannot freeze {stages} stages: the backbone has {len(blocks or ())}, and one must learn")
        self.frozen = tuple(
            cast(nn.Module, part) for part in (self.backbone.conv_stem, self.backbone.bn1, *blocks[:stages])
        )
        for part in self.frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> AttributeNet:
        """As in torch; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`pixels` uint8 (n, size, size, 3) → logits (n, Schema.n_scores) and embedding (n, features)."""
        images = (pixels.permute(0, 3, 1, 2).to(self.pixel_mean.dtype) - self.pixel_mean) * self.pixel_scale
        embedding = self.backbone(images)
        dropped = self.dropout(embedding)
        logits = torch.cat([head(dropped) for head in self.heads.values()], dim=1)
        return logits, embedding
