"""The network: a timm backbone with one linear head per attribute.

The heads see the embedding and, where the network has taps, pooled features of earlier stages beside it. Colour, small
details and what is in the middle of the photo are plainer there than in the last stage, which learned to name things.
"""

from __future__ import annotations

from collections.abc import Sequence
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


TAP_CENTRE = 0.35
"""Standard deviation of the weights around the middle of a tapped map, whose half width is 1."""


class AttributeNet(nn.Module):
    """uint8 photos in, logits of every attribute and an embedding out.

    Normalisation is part of the network, so that every engine takes the same uint8 pixels.
    """

    pixel_mean: Tensor
    pixel_scale: Tensor

    def __init__(
        self,
        backbone: str,
        schema: Schema,
        input_spec: InputSpec,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        taps: Sequence[int] = (),
    ) -> None:
        """Builds the network with random weights.

        Args:
            taps: stages of an EfficientNet, counted from 1, whose maps the heads see too: of every channel the mean
                around the middle, and the maximum.

        Raises:
            UsageError: timm does not know the backbone, or it has no such stages.
        """
        super().__init__()
        self.frozen: tuple[nn.Module, ...] = ()
        if backbone not in timm.list_models():
            close = ", ".join(timm.list_models(f"*{backbone.split('.')[0][:12]}*")[:5]) or "timm.list_models()"
            raise UsageError(f"timm knows no backbone {backbone!r}; near it: {close}")
        self.backbone = timm.create_model(backbone, num_classes=0, drop_path_rate=drop_path)
        features = cast(int, self.backbone.num_features)
        self.taps = tuple(taps)
        tapped = self._tapped_features()
        self.tap_norm = nn.BatchNorm1d(tapped, affine=False) if self.taps else None
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict(
            {head_name(a.name): nn.Linear(features + tapped, len(a.values)) for a in schema.attributes}
        )
        for head in self.heads.values():
            nn.init.normal_(cast(Tensor, head.weight), std=0.01)
            nn.init.zeros_(cast(Tensor, head.bias))
        mean = torch.tensor(input_spec.mean) * 255.0
        scale = 1.0 / (torch.tensor(input_spec.std) * 255.0)
        self.register_buffer("pixel_mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_scale", scale.view(1, 3, 1, 1), persistent=False)

    def _stages(self) -> nn.Sequential | None:
        """The stages of an EfficientNet; None: the backbone is another one."""
        blocks = getattr(self.backbone, "blocks", None)
        return cast(nn.Sequential, blocks) if blocks is not None and hasattr(self.backbone, "conv_stem") else None

    def _tapped_features(self) -> int:
        """How many numbers the taps give; raises `UsageError` where the backbone has no such stages."""
        if not self.taps:
            return 0
        stages = self._stages()
        if stages is None or not all(1 <= tap <= len(stages) for tap in self.taps):
            raise UsageError(f"cannot tap stages {list(self.taps)}: the backbone has {len(stages or ())}")
        self.backbone.eval()
        with torch.no_grad():
            _, tapped = self._walk(torch.zeros(1, 3, 64, 64))
        self.backbone.train()
        return sum(pooled.shape[1] for pooled in tapped)

    def freeze(self, stages: int) -> None:
        """Keep the stem and the first `stages` stages of an EfficientNet as they are, batch statistics included.

        Raises:
            UsageError: the backbone has no such parts.
        """
        if not stages:
            return
        blocks = self._stages()
        if blocks is None or stages >= len(blocks):
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
        embedding, tapped = self._walk(images) if self.taps else (self.backbone(images), [])
        seen = embedding
        if self.tap_norm is not None:
            seen = torch.cat([embedding, self.tap_norm(torch.cat(tapped, dim=1))], dim=1)
        dropped = self.dropout(seen)
        logits = torch.cat([head(dropped) for head in self.heads.values()], dim=1)
        return logits, embedding

    def _walk(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The embedding, and the pooled map of every tapped stage: what timm's forward does, stage by stage."""
        network = self.backbone
        maps = network.bn1(network.conv_stem(images))  # type: ignore[operator]
        tapped = []
        for number, stage in enumerate(cast(nn.Sequential, network.blocks), 1):
            maps = stage(maps)
            if number in self.taps:
                tapped.append(_pooled(maps))
        maps = network.bn2(network.conv_head(maps))  # type: ignore[operator]
        return network.forward_head(maps, pre_logits=True), tapped  # type: ignore[operator]


def _pooled(maps: Tensor) -> Tensor:
    """(n, channels, h, w) → (n, 2 x channels): the mean around the middle and the maximum of every channel."""
    height, width = maps.shape[2:]
    down = torch.linspace(-1, 1, height, device=maps.device)
    across = torch.linspace(-1, 1, width, device=maps.device)
    weights = torch.exp(-(down[:, None] ** 2 + across[None] ** 2) / (2 * TAP_CENTRE**2))
    weights = (weights / weights.sum()).to(maps.dtype)
    return torch.cat([(maps * weights).sum(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
