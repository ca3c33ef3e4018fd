"""Fine-tuning: labels files in, a network out.

One epoch draws as many photos as there are, sources evenly and rare values more often; the loss is the mean over
attributes of each attribute's mean loss over the photos where it is known. Partial labels count by marginal
likelihood. Resolution grows over the stages and ends at the served size. After every epoch a checkpoint is written,
from which a killed training goes on along the same curve.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from timm.optim._param_groups import param_groups_layer_decay
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor
from torch.nn import functional as F

from tagger import storage
from tagger.errors import UsageError
from tagger.model.engine import MAX_SIZE, InputSpec
from tagger.model.net import AttributeNet
from tagger.schema import Schema
from tagger.training.data import (
    Augmentation,
    LabelledPhotos,
    PhotoPack,
    augment,
    fit_square,
    prefetch,
    sampling_weights,
)
from tagger.training.sources import source_names

CHECKPOINT, CURVE = "checkpoint.safetensors", "curve.jsonl"
FILES = (CHECKPOINT, CURVE)
"""What `fit` keeps in its folder."""

Curve = list[dict[str, Any]]
"""The log: `epoch`, `size`, `loss`, `val` (source → attribute → share right) and `seconds` of every epoch."""


@dataclass(frozen=True)
class Stage:
    """So many epochs at one resolution."""

    epochs: int
    size: int  # pixels

    @classmethod
    def parse(cls, text: str) -> tuple[Stage, ...]:
        """`10@128,8@176,4@224` as stages; the last may have no epochs. Raises `UsageError` for anything else."""
        try:
            stages = tuple(cls(*map(int, part.split("@"))) for part in text.split(","))
        except (TypeError, ValueError):
            raise UsageError(f"stages are written like 10@128,4@224 (epochs@pixels), not {text!r}") from None
        least = [1] * (len(stages) - 1) + [0]
        if any(s.epochs < n or not 32 <= s.size <= MAX_SIZE for s, n in zip(stages, least, strict=True)):
            raise UsageError(
                f"a stage needs at least one epoch (the last: none) at 32 to {MAX_SIZE} pixels, not {text!r}"
            )
        return stages


@dataclass(frozen=True)
class TrainConfig:
    """How to train; everything here is written into the bundle's provenance."""

    backbone: str = "tf_efficientnet_lite0"
    stages: tuple[Stage, ...] = (Stage(10, 128), Stage(8, 176), Stage(4, 224))
    batch_size: int = 64
    lr: float = 5e-4  # of the backbone's last block
    head_lr: float = 2e-3
    layer_decay: float = 0.9  # learning-rate factor from each block to the one before
    frozen_stages: int = 0  # of the backbone, with its stem: they keep their weights and their batch statistics
    taps: tuple[int, ...] = ()  # stages whose pooled maps the heads see beside the embedding
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of all steps
    drop_path: float = 0.2
    dropout: float = 0.3
    ema_decay: float = 0.998
    mixup: float = 0.3  # of the Beta distribution that two photos are mixed by; 0: never; never in the last stage
    label_smoothing: float = 0.05  # on single-valued labels
    rare_threshold: float = 0.05  # values rarer than this share of a source are drawn more often
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"  # or bf16: mixed precision by autocast
    workers: int = 2
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def size_at(self, epoch: int) -> int:
        """Resolution of epoch number `epoch` (0-based)."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage.size
            epoch -= stage.epochs
        return self.stages[-1].size


def attribute_losses(logits: Tensor, allowed: Tensor, schema: Schema, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Mean loss of every attribute over the photos where it is known.

    Args:
        logits: (n, n_scores) float.
        allowed: (n, n_scores) bool, the values each label leaves possible; a row with none is masked.
        smoothing: label smoothing (Szegedy et al. 2016) on single-valued labels.

    Returns:
        attribute → scalar; attributes without a known label in the batch are left out. A partial label costs
        -log of the summed probability of its values (marginal likelihood; Jin and Ghahramani 2002).
    """
    losses = {}
    for name, part in schema.slices.items():
        mask = allowed[:, part]
        known = mask.any(1)
        if not bool(known.any()):
            continue
        mask = mask[known]
        log_p = F.log_softmax(logits[known, part].float(), dim=1)
        loss = -torch.logsumexp(log_p.masked_fill(~mask, -torch.inf), dim=1)
        if smoothing:
            single = mask.sum(1) == 1
            loss = torch.where(single, (1 - smoothing) * loss - smoothing * log_p.mean(1), loss)
        losses[name] = loss.mean()
    return losses


def total_loss(logits: Tensor, allowed: Tensor, schema: Schema, smoothing: float = 0.0) -> Tensor:
    """The attributes' mean losses, each weighed by the square root of the share of photos it is known of.

    Weighed evenly, an attribute that one photo in twenty has a label for would pull twenty times as hard at each of
    them, and be learned by heart.
    """
    losses = attribute_losses(logits, allowed, schema, smoothing)
    weights = {name: float(allowed[:, schema.slices[name]].any(1).float().mean()) ** 0.5 for name in losses}
    summed = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    return summed / len(schema.attributes)


def right_share(logits: npt.NDArray[np.float32], photos: LabelledPhotos) -> dict[str, tuple[float, int]]:
    """attribute → (share of known labels that the best value satisfies, number of known labels)."""
    result = {}
    for name, part in photos.schema.slices.items():
        mask = photos.allowed[:, part]
        known = mask.any(1)
        if known.any():
            best = logits[known, part].argmax(1)
            result[name] = (float(mask[known][np.arange(len(best)), best].mean()), int(known.sum()))
    return result


def fit(
    photos: LabelledPhotos,
    pack: PhotoPack,
    config: TrainConfig,
    work: Path,
    initial: Path | None,
    progress: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> AttributeNet:
    """Train on the rows of split `train`, watch `val`, and give the averaged (EMA) network.

    Args:
        photos: labels of all rows; `pack` holds their pixels, row by row.
        work: folder of checkpoints and of the log `curve.jsonl`; a checkpoint found there is taken up, and the log
            is made what the checkpoint knows: a kill between the two loses no line and doubles none.
        initial: safetensors file with backbone weights (or a whole network) to start from; None: random.
        progress: called with a text, the photos done and the photos of this epoch.
    """
    train_rows = _rows_of(photos, "train", pack)
    val_rows = _rows_of(photos, "val", pack)
    train = photos.select(train_rows)
    weights = sampling_weights(train, config.rare_threshold)
    torch.manual_seed(config.seed)
    net = AttributeNet(
        config.backbone,
        photos.schema,
        InputSpec(config.stages[-1].size),
        drop_path=config.drop_path,
        dropout=config.dropout,
        taps=config.taps,
    )
    untaught = load_weights(net, initial) if initial is not None else list(net.state_dict())
    if untaught and not config.epochs:
        raise UsageError(f"--stages without an epoch train nothing, and --init knows no {untaught[0]} of this schema")
    net = net.to(config.device).to(memory_format=torch.channels_last)
    net.freeze(config.frozen_stages)
    optimizer = _optimizer(net, config)
    ema = ModelEmaV3(net, decay=config.ema_decay, use_warmup=True)
    work.mkdir(parents=True, exist_ok=True)
    steps_per_epoch = len(train) // config.batch_size or 1
    curve = _load_checkpoint(work, net, ema, optimizer)  # a line for every epoch already done
    _write_curve(work, curve)
    for epoch in range(len(curve), config.epochs):
        started = time.monotonic()
        size = config.size_at(epoch)
        torch.manual_seed(config.seed * 10_007 + epoch)
        generator = np.random.default_rng((config.seed, epoch))
        order = generator.choice(len(train), steps_per_epoch * config.batch_size, p=weights)
        batches = _training_batches(pack, train_rows[order], size, config, epoch)
        net.train()
        total = 0.0
        for step, pixels in enumerate(batches):
            _set_lr(optimizer, config, epoch * steps_per_epoch + step, config.epochs * steps_per_epoch)
            rows = order[step * config.batch_size : (step + 1) * config.batch_size]
            allowed = torch.from_numpy(train.allowed[rows]).to(config.device)
            kept = _kept_share(config, epoch, step)
            with _autocast(config):
                logits, _ = net(_mixed(torch.from_numpy(pixels).to(config.device), kept))
            loss = total_loss(logits, allowed, photos.schema, config.label_smoothing)
            if kept < 1:
                other = total_loss(logits, allowed.flip(0), photos.schema, config.label_smoothing)
                loss = kept * loss + (1 - kept) * other
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            ema.update(net, step=epoch * steps_per_epoch + step)
            total += float(loss.detach())
            progress(f"epoch {epoch + 1}/{config.epochs} at {size} px", (step + 1) * len(rows), len(order))
        record: dict[str, Any] = {"epoch": epoch + 1, "size": size, "loss": round(total / steps_per_epoch, 5)}
        if len(val_rows):
            logits_val = predict_pack(cast(AttributeNet, ema.module), pack, val_rows, size, config)
            record["val"] = _val_record(logits_val, photos.select(val_rows))
        record["seconds"] = round(time.monotonic() - started, 1)
        curve.append(record)
        _save_checkpoint(work, net, ema, optimizer, curve)
        _write_curve(work, curve)
    return cast(AttributeNet, ema.module).eval()


def _kept_share(config: TrainConfig, epoch: int, step: int) -> float:
    """How much of each photo is left when it is mixed with another one; 1: nothing is mixed.

    Mixup (Zhang et al. 2018), left off in the last stage, where the network meets photos as it will be served them.
    """
    last_stage = epoch >= config.epochs - config.stages[-1].epochs
    if not config.mixup or (last_stage and len(config.stages) > 1):
        return 1.0
    share = float(np.random.default_rng((config.seed, epoch, step, 1)).beta(config.mixup, config.mixup))
    return max(share, 1 - share)


def _mixed(pixels: Tensor, kept: float) -> Tensor:
    """uint8 photos mixed with the same batch turned round."""
    if kept >= 1:
        return pixels
    return (pixels.float() * kept + pixels.flip(0).float() * (1 - kept)).round().to(torch.uint8)


def _rows_of(photos: LabelledPhotos, split: str, pack: PhotoPack) -> npt.NDArray[np.int64]:
    in_split = np.array([s == split for s in photos.splits], dtype=bool)
    return np.flatnonzero(in_split & pack.opened).astype(np.int64)


def predict_pack(
    net: AttributeNet, pack: PhotoPack, rows: npt.NDArray[Any], size: int, config: TrainConfig
) -> npt.NDArray[np.float32]:
    """Logits (rows, n_scores) of packed photos, without augmentation."""
    net.eval()
    tasks = (partial(fit_square, pack.pixels[row], size) for row in rows)
    out = []
    with torch.inference_mode(), _autocast(config):
        for pixels in prefetch(iter(tasks), config.batch_size, config.workers):
            out.append(net(torch.from_numpy(pixels).to(config.device))[0].float().cpu().numpy())
    return np.concatenate(out)


def load_weights(net: AttributeNet, file: Path) -> list[str]:
    """Take over a backbone (timm's parameter names) or a whole network; heads of other shapes start anew.

    Returns:
        Names of the tensors that start anew.

    Heads of a network without taps are taken over by one with taps: what the taps show weighs nothing at first.

    Raises:
        UsageError: the file holds another backbone, or is no safetensors file.
    """
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{file} cannot be read as safetensors: {error}") from None
    own = net.state_dict()
    if not any(name.startswith("backbone.") for name in tensors):
        tensors = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    tensors = {n: _widened(t, own[n]) if n in own else t for n, t in tensors.items()}
    fitting = {n: t for n, t in tensors.items() if n in own and own[n].shape == t.shape}
    wanted = [n for n in own if n.startswith("backbone.") and not n.endswith("num_batches_tracked")]
    missing = [n for n in wanted if n not in fitting]
    if missing:
        raise UsageError(f"{file} does not fit the backbone: {len(missing)} of {len(wanted)} tensors are missing")
    net.load_state_dict(fitting, strict=False)
    return [n for n in own if n not in fitting and not n.endswith("num_batches_tracked")]


def _widened(head: Tensor, own: Tensor) -> Tensor:
    """The weights of a head that saw only the embedding, for one that sees more; any other tensor as it is."""
    wider = head.ndim == 2 and own.ndim == 2 and len(head) == len(own) and head.shape[1] < own.shape[1]
    return F.pad(head, (0, own.shape[1] - head.shape[1])) if wider else head


def _val_record(logits: npt.NDArray[np.float32], val: LabelledPhotos) -> dict[str, dict[str, float]]:
    record, names = {}, source_names(val.sources)
    for source in sorted(set(val.sources)):
        rows = np.array([s == source for s in val.sources])
        shares = right_share(logits[rows], val.select(rows))
        record[names[source]] = {k: round(v[0], 4) for k, v in shares.items()}
    return record


def _training_batches(
    pack: PhotoPack, rows: npt.NDArray[Any], size: int, config: TrainConfig, epoch: int
) -> Iterator[npt.NDArray[np.uint8]]:
    def tasks() -> Iterator[Callable[[], npt.NDArray[np.uint8]]]:
        for position, row in enumerate(rows):
            generator = np.random.default_rng((config.seed, epoch, position))
            yield partial(_augmented, pack, int(row), size, config.augmentation, generator)

    return prefetch(tasks(), config.batch_size, config.workers)


def _augmented(
    pack: PhotoPack, row: int, size: int, plan: Augmentation, generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    return augment(np.asarray(pack.pixels[row]), size, plan, generator)


def _autocast(config: TrainConfig) -> torch.autocast:
    return torch.autocast(config.device.split(":")[0], torch.bfloat16, enabled=config.precision == "bf16")


def _optimizer(net: AttributeNet, config: TrainConfig) -> torch.optim.AdamW:
    groups = param_groups_layer_decay(
        net.backbone, weight_decay=config.weight_decay, layer_decay=config.layer_decay, no_opt_scale=None
    )
    groups = [group for group in groups if any(p.requires_grad for p in group["params"])]
    for group in groups:
        group["base_lr"] = config.lr * group.pop("lr_scale", 1.0)
        group.pop("param_names", None)
    heads = list(net.heads.parameters())
    groups.append({"params": heads, "weight_decay": config.weight_decay, "base_lr": config.head_lr})
    return torch.optim.AdamW(groups, lr=config.lr)


def _set_lr(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, steps: int) -> None:
    """Linear warm-up, then a cosine to a hundredth."""
    warmup = max(1, int(config.warmup * steps))
    if step < warmup:
        factor = (step + 1) / warmup
    else:
        done = (step - warmup) / max(1, steps - warmup)
        factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _save_checkpoint(
    work: Path, net: AttributeNet, ema: ModelEmaV3, optimizer: torch.optim.Optimizer, curve: Curve
) -> None:
    tensors = {f"net.{k}": v.contiguous() for k, v in net.state_dict().items()}
    tensors |= {f"ema.{k}": v.contiguous() for k, v in ema.module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"opt.{index}.{k}": torch.as_tensor(v).contiguous() for k, v in state.items()}
    tensors = {k: v.detach().cpu().clone() for k, v in tensors.items()}
    unfinished = work / "checkpoint.unfinished"
    save_file(tensors, unfinished, metadata={"epoch": str(len(curve)), "curve": json.dumps(curve)})
    os.replace(unfinished, work / CHECKPOINT)


def _write_curve(work: Path, curve: Curve) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in curve)
    storage.write_bytes(str(work / CURVE), lines.encode())


def _load_checkpoint(work: Path, net: AttributeNet, ema: ModelEmaV3, optimizer: torch.optim.Optimizer) -> Curve:
    """Take up the checkpoint in `work`; returns the log of the epochs already done, none where there is no checkpoint.

    Raises:
        UsageError: the checkpoint is of a version that did not keep the log in it.
    """
    file = work / CHECKPOINT
    if not file.exists():
        return []
    with safe_open(file, "pt") as stored:
        metadata = stored.metadata()
    if "curve" not in metadata:
        raise UsageError(f"{file} was written by an earlier version of tagger: start anew with --no-resume")
    curve: Curve = json.loads(metadata["curve"])
    tensors = load_file(file)
    net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    ema.module.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("ema.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("opt."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return curve


def provenance(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain data for bundle.json."""
    return asdict(config)
