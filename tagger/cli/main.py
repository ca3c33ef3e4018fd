"""The command line: one module per command family, loaded only when its command is asked for."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import traceback
from typing import Any

import click

from tagger import __version__
from tagger.cli.output import leave_output
from tagger.errors import TaggerError, UsageError

COMMANDS = {
    "run": "tagger.cli.run:run",
    "status": "tagger.cli.run:status",
    "review": "tagger.cli.review:review",
    "export": "tagger.cli.export:export",
    "similar": "tagger.cli.similar:similar",
    "schema": "tagger.cli.schema:schema",
    "train": "tagger.cli.train:train",
    "evaluate": "tagger.cli.evaluate:evaluate",
    "calibrate": "tagger.cli.evaluate:calibrate",
    "map": "tagger.cli.map:map_command",
    "demo": "tagger.cli.demo:demo",
    "bench": "tagger.cli.bench:bench",
}


TRAINING_PACKAGES = frozenset({"torch", "torchvision", "timm", "onnx", "onnxscript"})
"""What `requirements-serve.txt` leaves out."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed, so that `--help` stays quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # the reader of standard output has seen enough, as in `| head`
            leave_output()
            return 0


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tagger")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Attribute tags for shop catalogues, with confidences a shop can act on.

    \b
    tagger demo --out demo            draw a small catalogue
    tagger run demo/manifest.csv      tag it
    tagger export manifest.tags --format csv
    """


def main() -> None:
    """Run the command line and leave with its exit code; errors are one sentence unless --debug is given."""
    debug = "--debug" in sys.argv[1:]
    try:
        for argument in sys.argv[1:]:
            if any("\ud800" <= letter <= "\udfff" for letter in argument):
                raise UsageError(f"{os.fsencode(argument)!r} is not UTF-8: rename the file or folder")
        code = cli.main(args=[a for a in sys.argv[1:] if a != "--debug"], prog_name="tagger", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        click.echo(_masked(_shown(error)), err=True, nl=False)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("tagger: interrupted", err=True)
        code = 75
    except Exception as error:
        if debug:
            click.echo(_masked(traceback.format_exc()), err=True, nl=False)
        message, code = _explain(error)
        click.echo(f"tagger: {_masked(message)}", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _shown(error: click.ClickException) -> str:
    """What click prints of a wrong option."""
    text = io.StringIO()
    error.show(text)
    return text.getvalue()


def _masked(text: str) -> str:
    """`text` without the secrets of the URLs in it: options and manifests hold signed ones."""
    if "://" not in text:
        return text
    from tagger.source.fetch import mask_text  # here: help must not wait for it

    return mask_text(text)


def _explain(error: Exception) -> tuple[str, int]:
    """One sentence for a person, and the exit code."""
    if isinstance(error, TaggerError):
        return str(error), error.exit_code
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in TRAINING_PACKAGES:
        return f"this needs {error.name}, which the lean installation leaves out: pip install tagger", 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"cannot write to {error.filename or 'standard output'}: {error.strerror}", 1
    if isinstance(error, OSError) and str(error.filename or "").startswith("s3://"):
        return f"{error.filename}: {error.strerror}; the same command goes on when that is mended", 1
    return f"internal error: {type(error).__name__}: {error} (run again with --debug and report it)", 70


if __name__ == "__main__":
    main()
