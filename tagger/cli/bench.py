"""`tagger bench`."""

from __future__ import annotations

import re
import tempfile
from typing import Any

import click

from tagger.cli.options import as_json, echo_json, example


def parse_size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Width and height in pixels of `WxH`."""
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", value)
    if match is None or not all(16 <= int(side) <= 8192 for side in match.groups()):
        raise click.BadParameter(f"{value}: width x height in pixels, 16 to 8192 each, such as 320x427")
    return int(match[1]), int(match[2])


@click.command()
@click.argument("manifest", required=False)
@click.option(
    "--size",
    metavar="WxH",
    default="320x427",
    show_default=True,
    callback=parse_size,
    help="Pixels of the photos that are drawn where no MANIFEST is given.",
)
@click.option("--items", type=click.IntRange(1, 100_000), default=256, show_default=True, help="Photos, at most.")
@click.option("--repeats", type=click.IntRange(1, 1000), default=5, show_default=True, help="Turns of every stage.")
@click.option("--bundle", metavar="BUNDLE", help="Model to measure. Default: the one inside the package.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Photos per prediction. Default: by device.")
@click.option("--workers", type=click.IntRange(1, 256), help="Threads that read photos. Default: one per CPU.")
@click.option("--root", metavar="DIR", help="Refuse local photos outside this folder.")
@as_json
@example("tagger bench --size 1500x2000 --items 64")
def bench(manifest: str | None, size: tuple[int, int], as_json: bool, **options: Any) -> None:
    """Measure fetch, decode, predict and write, each alone and all together, and the efficiency.

    The first photos of MANIFEST are taken, or photos are drawn. Nothing is written beside it. Ratios are taken within
    one run; on a busy machine trust the CPU milliseconds and the CPU efficiency, not the photos per second.
    """
    from tagger.tagging.bench import BenchOptions, measure

    def say(text: str) -> None:
        click.echo(f"tagger: {text}", err=True)

    with tempfile.TemporaryDirectory(prefix="tagger-bench-") as folder:
        if manifest is None:
            from tagger.demo import draw_photos

            say(f"drawing {options['items']} photos of {size[0]}×{size[1]} pixels")
            manifest = draw_photos(folder, options["items"], size)
        result = measure(BenchOptions(manifest, **options), say)
    if as_json:
        echo_json(result)
    else:
        click.echo(render_bench(result))


def render_bench(result: dict[str, Any]) -> str:
    """The figures for a person."""
    machine = result["machine"]
    lines = [
        f"{result['photos']} photos of {result['megapixels']:.2f} megapixels, {result['bundle']} at "
        f"{result['input_size']} px, batches of {result['batch_size']}, {result['workers']} reading threads, "
        f"{result['parallel']} predictions at once, median of {result['repeats']} turns",
        f"{result['device']}; {machine['cores']} cores of {machine['processor']}, load {machine['load']}",
        "",
        f"{'stage':12} {'photos/s':>10} {'CPU ms/photo':>14}",
    ]
    for stage, figures in result["stages"].items():
        lines.append(f"{stage:12} {figures['photos_per_second']:>10,.1f} {figures['cpu_ms_per_photo']:>14.3f}")
    lines += ["", f"efficiency   {result['efficiency']:.3f} of the rate that decode and predict allow"]
    if "cpu_efficiency" in result:
        lines.append(f"by CPU time  {result['cpu_efficiency']:.3f}")
    lines.append(f"writing      {result['write_share']:.2%} of the time")
    if result["photos_left_out"]:
        lines.append(f"{result['photos_left_out']} rows were left out: their photos cannot be read")
    return "\n".join(lines)
