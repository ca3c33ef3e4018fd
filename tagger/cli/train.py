"""`tagger train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from tagger.cli.options import example, web_photos


@click.command()
@click.argument("labels", nargs=-1, required=True)
@click.option("--out", required=True, metavar="BUNDLE", help="Folder of the new bundle.")
@click.option("--schema", "schema_name", default="apparel", show_default=True, help="Shipped schema or YAML file.")
@click.option(
    "--init",
    multiple=True,
    default=("default",),
    show_default=True,
    help="default, imagenet, or a safetensors file. Repeatable: the mean of several networks.",
)
@click.option("--name", help="Name of the bundle. Default: the folder's.")
@click.option("--backbone", default="tf_efficientnet_lite0", show_default=True, help="Any EfficientNet that timm has.")
@click.option(
    "--stages",
    default="10@128,8@176,4@224",
    show_default=True,
    help="epochs@pixels, served size last; its epochs may be 0, and 0@176 alone takes --init as it is.",
)
@click.option(
    "--tap",
    "taps",
    type=click.IntRange(min=1),
    multiple=True,
    help="A stage of the backbone whose pooled maps the heads see beside the embedding. Repeatable. Default: as the "
    "bundle of --init default has it, else none.",
)
@click.option(
    "--freeze",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="First stages of the backbone that keep their weights: 3 trains twice as fast on a CPU.",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate of the backbone's last block; heads learn five times as fast. Default: 5e-4 and 2e-3.",
)
@click.option("--batch-size", type=click.IntRange(2, 4096), default=64, show_default=True, help="Photos per step.")
@click.option(
    "--mixup",
    type=click.FloatRange(0, 10),
    default=0.3,
    show_default=True,
    help="Of the Beta distribution that two photos are mixed by, save in the last stage; 0: never.",
)
@click.option(
    "--drop-path",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="How often the last block of the backbone is left out, the ones before it less often.",
)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.3,
    show_default=True,
    help="How often a feature is hidden from the heads.",
)
@click.option(
    "--weight-decay", type=click.FloatRange(min=0), default=0.05, show_default=True, help="Of AdamW, on all weights."
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    default=("contributor", "brand"),
    show_default=True,
    help="Column whose values must not cross splits. Repeatable; the first one a file has counts.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="bf16: mixed precision, quicker on a GPU and on CPUs with AVX512-BF16.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
@click.option(
    "--decisions",
    multiple=True,
    metavar="DIR",
    help="Ledger of what people decided; its values become labels. Repeatable.",
)
@click.option(
    "--min-count",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Drop values that fewer than N photos of train are labelled with.",
)
@click.option(
    "--unknown-values",
    type=click.Choice(["stop", "mask"]),
    default="stop",
    show_default=True,
    help="A label that the schema lacks ends the training, or counts as unknown.",
)
@click.option(
    "--label-errors/--no-label-errors", default=True, show_default=True, help="List labels that are likely wrong."
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on from the checkpoints in BUNDLE.work, or throw them away.",
)
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Threads that read photos.")
@web_photos
@example("tagger train labels.csv --decisions tags/decisions --out my-bundle")
def train(labels: tuple[str, ...], **options: Any) -> None:
    """Fine-tune a network on LABELS and write a bundle with calibrated confidences.

    LABELS are manifests with one column per attribute of the schema and a column split (train, val, test). The
    network is fitted on train and calibrated on val; rows of the split test are left alone. A training that was
    stopped goes on from its last epoch when the same command is given again; its checkpoints and curve lie in
    BUNDLE.work.

    Decisions bind to a photo's bytes, and the photo must stand in one of LABELS: also a plain manifest will do. Rows
    without a split that people decided something of join train, unless their group, item or photo stands in val or
    test. Beside the bundle lie data_report.md, which says what the labels gave, and label_errors.csv, a review list
    of labels that are likely wrong.
    """
    from tagger.cli.evaluate import score_photos
    from tagger.training.recipe import Recipe, train_bundle

    recipe = Recipe(labels=labels, command=shlex.join(["tagger", *sys.argv[1:]]), **options)
    score = partial(score_photos, allow_http=recipe.allow_http, allow_private_http=recipe.allow_private_http)
    bundle = train_bundle(recipe, score, show_progress(), lambda line: click.echo(line, err=True))
    click.echo(f"bundle {bundle.bundle_id}, calibration {bundle.calibration_id}: {recipe.out}")


def show_progress() -> Callable[[str, int, int], None]:
    """tqdm on a terminal, a line every 30 s elsewhere; called with a text, what is done and the total."""
    import time

    from tqdm import tqdm

    state: dict[str, Any] = {"bar": None, "text": "", "said": time.monotonic()}

    def show(text: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            if state["text"] != text:
                if state["bar"] is not None:
                    state["bar"].close()
                state["bar"], state["text"] = tqdm(total=total, desc=text, unit="photo", file=sys.stderr), text
            state["bar"].update(done - state["bar"].n)
        elif time.monotonic() - state["said"] > 30:
            state["said"] = time.monotonic()
            click.echo(f"tagger: {text}: {done:,} of {total:,}", err=True)

    return show
