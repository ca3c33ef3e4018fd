"""A schema out of a shop's own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import write_manifest

from tagger.cli.main import cli
from tagger.errors import UsageError
from tagger.schema import load_schema
from tagger.training.own_schema import schema_from_labels


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Colours: 4 mint, 3 off, 1 lime, 'mint|off' twice; hems: all wide; fit only in val; a title for every row."""
    colours = ["mint", "off", "mint", "off", "mint", "off", "mint", "lime", "mint|off", "mint|off", "lime"]
    rows = [
        {
            "sku": str(n),
            "image": f"{n}.png",
            "split": "val" if n == 10 else "train",
            "brand": "acme",
            "colour": colour,
            "hem": "wide",
            "Neck Line": "round" if n % 2 else "v",
            "title": f"Shirt {n}",
        }
        for n, colour in enumerate(colours)
    ]
    return write_manifest(tmp_path / "labels.csv", rows)


def test_values_with_enough_rows_make_the_schema(labels: Path) -> None:
    draft = schema_from_labels([str(labels)], "own", 3, groups=("brand",))
    (colour,) = draft.schema.attributes
    assert colour.value_names == ("mint", "off")
    assert draft.lines == (
        "colour: 2 of 3 values, which 88% of its labels name",
        "hem: left out: 1 of 1 values have 3 rows",
        "Neck Line: left out: the schema of these labels: the attribute name 'Neck Line' "
        "does not match [a-z][a-z0-9_]*",
        "title: left out: 0 of 10 values have 3 rows",
    )


def test_columns_can_be_chosen(labels: Path) -> None:
    draft = schema_from_labels([str(labels)], "own", 1, ["title"])
    assert list(draft.schema.by_name) == ["title"]
    with pytest.raises(UsageError, match="no file has a column tint; there are colour"):
        schema_from_labels([str(labels)], "own", 1, ["colour", "tint"])
    with pytest.raises(
        UsageError, match=r"no column has two values with 9 rows each; lower --min-count \(.*colour: left out"
    ):
        schema_from_labels([str(labels)], "own", 9)


def test_command_writes_a_file_that_trains(labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "my-shop.yaml"
    command = ["schema", "from-labels", str(labels), "--min-count", "3"]
    result = CliRunner().invoke(cli, [*command, "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert f"{output}: 1 attributes, 2 values" in result.stderr
    schema = load_schema(str(output))
    assert (schema.name, schema.by_name["colour"].value_names) == ("my-shop", ("mint", "off"))
    for more in ([], ["--output", "-"]):
        assert CliRunner().invoke(cli, [*command, *more]).stdout == output.read_text().replace("my-shop", "own")
    assert not (tmp_path / "-").exists()
    refused = CliRunner().invoke(cli, [*command, "--output", str(tmp_path)])
    assert str(refused.exception).startswith(f"cannot write {tmp_path}: ")
