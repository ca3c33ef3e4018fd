"""Every command explains itself and stands in the README."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tagger.cli.main import COMMANDS, cli

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


def all_commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {child}": sub for child, sub in command.commands.items()}
        else:
            found[name] = command
    return found


@pytest.mark.parametrize("name", all_commands())
def test_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert f"tagger {name}" in result.output.split("Example:", 1)[1]


@pytest.mark.parametrize("name", all_commands())
def test_every_option_has_a_help_text(name: str) -> None:
    for parameter in all_commands()[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"tagger {name} {parameter.opts[0]}"


@pytest.mark.parametrize("name", all_commands())
def test_command_stands_in_the_readme(name: str) -> None:
    assert f"tagger {name}" in README


def test_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(cli, ["tagg"])
    assert result.exit_code == 2
    assert "tagg" in result.output
