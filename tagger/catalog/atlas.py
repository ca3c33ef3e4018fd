"""An autoencoder that takes attribute profiles to two dimensions and back.

The encoder places an item, the decoder reads any point as an attribute profile, also one where no item lies. A decoder
alone can be fitted to another layout, so that its points can be read as well. Both are small networks: seconds on a
CPU, the same weights from the same seed, library and processor. Weights are kept as safetensors.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from tagger import storage
from tagger.catalog.map.layout import MIN_ITEMS, frame, neighbour_layout
from tagger.catalog.map.points import Floats, Points, hellinger
from tagger.catalog.map.quality import TRUST_NEIGHBOURS, Reconstruction, reconstruction, trustworthiness
from tagger.errors import UsageError
from tagger.schema import Schema

NEIGHBOURS, AUTOENCODER = LAYOUTS = ("neighbours", "autoencoder")
"""The ways to lay items out: by t-SNE, or by the autoencoder's own two dimensions."""


@dataclass(frozen=True)
class FitOptions:
    """How the networks are fitted."""

    hidden: int = 128  # units of each of the two hidden layers
    steps: int = 2_000
    batch: int = 256  # items a step
    learning_rate: float = 4e-3  # the most, half-way up a one-cycle schedule
    noise: float = 0.1  # added to codes while fitting, so that like profiles come to lie near each other
    seed: int = 0


class Decoder:
    """Reads points of a map as attribute profiles."""

    def __init__(self, net: nn.Sequential, schema: Schema, centre: Floats, scale: float) -> None:
        """
        Args:
            net: (n, 2) → logits (n, n_scores).
            centre: (2,); the net was fitted on (xy - centre) / scale.
        """
        self.net, self.schema, self.centre, self.scale = net, schema, centre, scale

    def __call__(self, xy: Floats) -> Floats:
        """P(value | applies) of every attribute at each point of `xy`, (n, n_scores)."""
        with torch.no_grad():
            logits = self.net(torch.from_numpy(((xy - self.centre) / self.scale).astype(np.float32)))
            parts = [F.softmax(logits[:, part], dim=1) for part in self.schema.slices.values()]
        result: Floats = torch.cat(parts, dim=1).numpy()
        return result

    def layers(self) -> list[tuple[Floats, Floats]]:
        """(weight (out, in), bias (out,)) of every linear layer; between them SiLU, x / (1 + e^-x)."""
        linear = [layer for layer in self.net if isinstance(layer, nn.Linear)]
        return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in linear]


@dataclass(frozen=True)
class Autoencoder:
    """Profiles → two dimensions → profiles."""

    encoder: nn.Sequential
    decoder: Decoder

    def encode(self, profile: Floats) -> Floats:
        """The place of each profile on the map, (n, 2), in the decoder's coordinates."""
        features = torch.from_numpy(hellinger(profile, self.decoder.schema))
        with torch.no_grad():
            codes: Floats = self.encoder(features).numpy()
        return (codes * self.decoder.scale + self.decoder.centre).astype(np.float32)


def fit_autoencoder(profile: Floats, schema: Schema, options: FitOptions | None = None) -> Autoencoder:
    """Fit an autoencoder to profiles, (n, n_scores).

    Minimises the cross-entropy of each attribute, weighted by P(applies): what does not apply teaches nothing.
    """
    options = options or FitOptions()
    with _seeded(options.seed) as generator:
        encoder = _net([schema.n_scores, options.hidden, options.hidden, 2])
        net = _net([2, options.hidden, options.hidden, schema.n_scores])

        def codes(rows: torch.Tensor) -> torch.Tensor:
            z = encoder(features[rows])
            noisy: torch.Tensor = z + options.noise * torch.randn(z.shape, generator=generator)
            return noisy

        features = torch.from_numpy(hellinger(profile, schema))
        _fit(nn.ModuleList([encoder, net]), net, codes, profile, schema, options, generator)
    with torch.no_grad():
        xy = encoder(features).numpy()
    centre, scale = frame(xy)  # of the codes, so that places on the map are (codes - centre) / scale
    return Autoencoder(encoder, Decoder(net, schema, -centre / np.float32(scale), 1.0 / scale))


def fit_decoder(xy: Floats, profile: Floats, schema: Schema, options: FitOptions | None = None) -> Decoder:
    """Fit a decoder alone, so that the points of another layout, (n, 2), can be read as profiles."""
    options = options or FitOptions()
    centre, scale = xy.mean(axis=0), float(xy.std()) or 1.0
    places = torch.from_numpy(((xy - centre) / scale).astype(np.float32))
    with _seeded(options.seed) as generator:
        net = _net([2, options.hidden, options.hidden, schema.n_scores])
        _fit(net, net, lambda rows: places[rows], profile, schema, options, generator)
    return Decoder(net, schema, centre.astype(np.float32), scale)


# -- the whole map -------------------------------------------------------------------------------------------------

HELD_OUT = 0.1
"""The share of the items that no network is fitted on: what is read back is measured on them."""


@dataclass(frozen=True)
class Layout:
    """One way to lay the items out, and how good it is."""

    name: str  # neighbours or autoencoder
    xy: Floats  # (n, 2)
    decoder: Decoder
    trustworthiness: float
    reconstruction: Reconstruction
    seconds: float  # of the layout and its networks


def fit_layouts(points: Points, names: Sequence[str], seed: int = 0) -> tuple[list[Layout], Autoencoder | None]:
    """Lay `points` out in each of the ways that `names` lists; the autoencoder, where it is among them, is kept.

    Raises:
        UsageError: there are too few items, or a library is not installed.
    """
    if len(points) < MIN_ITEMS:
        raise UsageError(f"a map needs at least {MIN_ITEMS} items with a photo that could be read, not {len(points)}")
    order = np.random.default_rng(seed).permutation(len(points))
    held_out, fitted = np.split(order, [max(1, round(len(points) * HELD_OUT))])
    profile, schema = points.profile, points.schema
    features, options = hellinger(profile, schema), FitOptions(seed=seed)
    layouts, kept = [], None
    for name in names:
        started = time.monotonic()
        if name == AUTOENCODER:
            kept = fit_autoencoder(profile[fitted], schema, options)
            xy, decoder = kept.encode(profile), kept.decoder
        else:
            xy = neighbour_layout(features, seed)
            decoder = fit_decoder(xy[fitted], profile[fitted], schema, options)
        trust = trustworthiness(features, xy, neighbours=min(TRUST_NEIGHBOURS, (len(points) - 1) // 2), seed=seed)
        read_back = reconstruction(decoder(xy[held_out]), profile[held_out], profile[fitted], schema)
        layouts.append(Layout(name, xy, decoder, trust, read_back, time.monotonic() - started))
    return layouts, kept


# -- networks ------------------------------------------------------------------------------------------------------


def _net(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (width, following) in enumerate(itertools.pairwise(widths)):
        layers += [nn.SiLU()] * (i > 0) + [nn.Linear(width, following)]
    return nn.Sequential(*layers)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[torch.Generator]:
    """A generator for the fit; weights begin from the seed too, and the caller's random state is left as it was.

    One thread: networks this small are no quicker with more, and sums come out alike whatever the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)
    finally:
        torch.set_num_threads(threads)


def _fit(
    module: nn.Module,
    decoder: nn.Sequential,
    codes: Callable[[torch.Tensor], torch.Tensor],
    profile: Floats,
    schema: Schema,
    options: FitOptions,
    generator: torch.Generator,
) -> None:
    """Fit all of `module` so that `decoder` reads the profiles of rows from their `codes`."""
    target = torch.from_numpy(profile)
    parts = list(schema.slices.values())
    optimiser = torch.optim.Adam(module.parameters(), options.learning_rate)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, total_steps=options.steps)
    for _ in range(options.steps):
        rows = torch.randint(0, len(target), (options.batch,), generator=generator)
        logits, wanted = decoder(codes(rows)), target[rows]
        # profiles hold P(applies) × P(value | applies): the weight of an attribute is in them already
        losses = [-(wanted[:, part] * F.log_softmax(logits[:, part], dim=1)).sum(dim=1) for part in parts]
        optimiser.zero_grad()
        torch.stack(losses).sum(dim=0).mean().backward()
        optimiser.step()
        rate.step()


# -- files ---------------------------------------------------------------------------------------------------------


def save_autoencoder(model: Autoencoder, file: IO[bytes]) -> None:
    """Write the weights as safetensors; raises `OSError`."""
    tensors = {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    tensors |= {f"decoder.{name}": tensor for name, tensor in model.decoder.net.state_dict().items()}
    tensors["centre"] = torch.from_numpy(np.asarray(model.decoder.centre, np.float32))
    tensors["scale"] = torch.tensor([model.decoder.scale], dtype=torch.float64)
    values = {a.name: list(a.value_names) for a in model.decoder.schema.attributes}
    file.write(save(tensors, {"values": json.dumps(values, ensure_ascii=False)}))


def load_autoencoder(path: str, schema: Schema) -> Autoencoder:
    """What `save_autoencoder` wrote.

    Raises:
        UsageError: the file cannot be read, is damaged, or belongs to a schema with other values.
    """
    try:
        data = storage.read_bytes(path)
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["values"])
        if values != {a.name: list(a.value_names) for a in schema.attributes}:
            raise UsageError(f"{path} was fitted to other attributes or values than those of the schema {schema.name}")
        encoder, net = (_restored(tensors, f"{part}.") for part in ("encoder", "decoder"))
        return Autoencoder(encoder, Decoder(net, schema, tensors["centre"].numpy(), float(tensors["scale"])))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {storage.reason(error)}") from None
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"{path} holds no autoencoder of a map: {error}; write it again with --weights") from None


def _restored(tensors: dict[str, torch.Tensor], prefix: str) -> nn.Sequential:
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    depths = sorted(int(name.removesuffix(".weight")) for name in state if name.endswith(".weight"))
    weights = [state[f"{depth}.weight"] for depth in depths]
    net = _net([weights[0].shape[1], *(weight.shape[0] for weight in weights)])
    net.load_state_dict(state)
    return net
