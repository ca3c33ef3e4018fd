"""Who may import whom, read from the syntax tree; and what a run on the CPU loads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fakes import MakeManifest, run_python

import tagger

ROOT = Path(tagger.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

LAYERS = (
    {"errors"},
    {"records", "storage", "spreadsheet"},
    {"schema"},
    {"source", "model", "ledger", "results"},
    {"final", "compare"},
    {"overlay"},
    {"products"},
    {"tagging", "training", "review", "catalog", "demo"},
    {"cli"},
)
"""From the bottom up. A module imports from its own room and from the layers below it, never from its neighbours:
so source and model do not know each other, and the feature packages meet in cli only."""

TORCH = (
    "tagger.model.net",
    "tagger.model.torch_engine",
    "tagger.model.export",
    "tagger.training",
    "tagger.catalog.atlas",
)
ONLY_IN: dict[str, tuple[str, ...]] = {
    "torch": TORCH,
    "torchvision": TORCH,
    "timm": TORCH,
    "safetensors": (*TORCH, "tagger.model.descriptor"),  # its numpy half needs no torch
    "onnx": ("tagger.model.export",),
    "onnxruntime": ("tagger.model.onnx_engine",),
    "openTSNE": ("tagger.catalog.map.layout",),
    "ray": ("tagger.tagging.ray",),
    "boto3": ("tagger.storage",),
    "botocore": ("tagger.storage",),
    "urllib3": ("tagger.source.web", "tagger.source.connections", "tagger.storage"),
    "yaml": ("tagger.schema",),
    "click": ("tagger.cli",),
    "tqdm": ("tagger.cli",),
    **dict.fromkeys(("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"), ()),
}

LAZY = {
    ("catalog", "openTSNE"),  # an extra
    ("catalog", "openTSNE.affinity"),
    ("model", "tagger.model.bundle"),  # which itself needs InputSpec from engine
    ("model", "tagger.model.onnx_engine"),
    ("model", "tagger.model.torch_engine"),
    ("source", "pillow_heif"),
    ("storage", "tagger.storage.lease"),  # these two load boto3
    ("storage", "tagger.storage.s3"),
    ("tagging", "tagger.source.isolate"),
    ("source", "tagger.source.web"),
    ("training", "timm"),
    ("training", "safetensors.torch"),
    ("training", "cleanlab.count"),
    ("training", "cleanlab.filter"),
}
"""(room, what it imports inside a function): outside of cli, only what not every run has or needs."""


class Import(NamedTuple):
    """One imported name."""

    module: str  # that imports
    name: str  # of the module that is imported
    line: int
    lazy: bool  # inside a function
    typing: bool  # below `if TYPE_CHECKING`


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def imports_of(module: str) -> Iterator[Import]:
    def visit(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, alias.name, child.lineno, lazy, typing)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}:{child.lineno}: a relative import"
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield Import(module, full if full in MODULES else str(child.module), child.lineno, lazy, typing)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                guard = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from visit(child, lazy or inside, typing or guard)

    yield from visit(ast.parse(MODULES[module].read_text("utf-8")), False, False)


IMPORTS = [found for module in MODULES for found in imports_of(module) if found.name != "__future__"]


def room(module: str) -> str:
    """`model` for `tagger.model.net`; empty for `tagger` itself, which holds the version."""
    return module.removeprefix("tagger").removeprefix(".").split(".")[0]


def is_in(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_the_syntax_trees_were_read() -> None:
    assert len(MODULES) > 30
    found = {(i.module, i.name, i.lazy) for i in IMPORTS}
    assert ("tagger.model.net", "timm", False) in found
    assert ("tagger.model.net", "tagger.schema", False) in found
    assert ("tagger.source.fetch", "tagger.storage", False) in found
    assert ("tagger.model.engine", "tagger.model.onnx_engine", True) in found


def test_every_room_has_its_layer() -> None:
    rooms = {room(module) for module in MODULES} - {"", "__main__"}
    assert rooms <= set().union(*LAYERS)


@pytest.mark.parametrize("importing", sorted(set().union(*LAYERS)))
def test_a_room_imports_only_itself_and_the_layers_below(importing: str) -> None:
    level = next(i for i, rooms in enumerate(LAYERS) if importing in rooms)
    allowed = set().union(*LAYERS[:level]) | {importing, ""}
    wrong = [
        f"{found.module}:{found.line} imports {found.name}"
        for found in IMPORTS
        if room(found.module) == importing and found.name.split(".")[0] == "tagger" and room(found.name) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_known_in_its_places_only(library: str) -> None:
    wrong = [
        f"{found.module}:{found.line} imports {found.name}"
        for found in IMPORTS
        if found.name.split(".")[0] == library and not is_in(found.module, ONLY_IN[library])
    ]
    assert wrong == []


def test_imports_go_in_no_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in IMPORTS:
        if found.name in MODULES and not found.lazy and not found.typing:
            graph[found.module].add(found.name)
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join([*way[way.index(module) :], module])
        if module not in done:
            for name in sorted(graph[module]):
                walk(name, (*way, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_imports_stand_at_the_top_but_for_those_that_are_lazy_on_purpose() -> None:
    lazy = {(room(found.module), found.name) for found in IMPORTS if found.lazy and room(found.module) != "cli"}
    assert lazy == LAZY


def test_nothing_is_pickled_and_nothing_unpickled() -> None:
    wrong = []
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                allow = any(keyword.arg == "allow_pickle" for keyword in node.keywords)
                if name in ("torch.load", "torch.save", "np.save", "np.savez") or allow or name.endswith(".to_pickle"):
                    wrong.append(f"{module}:{node.lineno} calls {name}")
    assert wrong == []


# -- what is really loaded -----------------------------------------------------------------------------------------

LOADED = """
import sys
from tagger.cli.main import cli
try:
    cli.main(args=sys.argv[2:], standalone_mode=False)
except SystemExit:
    pass
print("LOADED", sorted(set(sys.argv[1].split(",")) & set(sys.modules)), flush=True)
"""


def test_help_is_quick_and_loads_no_library() -> None:
    from tagger.cli.main import COMMANDS

    heavy = "torch,timm,onnx,onnxruntime,ray,boto3,pandas,pyarrow,numpy,PIL,yaml"
    for command in ([], ["run"], ["status"]):
        result = run_python(LOADED, heavy, *command, "--help")
        assert result.stdout.endswith("LOADED []\n"), (command, result.stdout[-500:], result.stderr)
    assert "run" in COMMANDS


def test_a_run_on_the_cpu_never_loads_torch(make_manifest: MakeManifest, network_bundle: str, tmp_path: Path) -> None:
    options = ("--bundle", network_bundle, "--out", tmp_path / "out", "--device", "cpu")
    result = run_python(LOADED, "torch,timm,onnx,ray,boto3,click,onnxruntime", "run", make_manifest(3), *options)
    assert result.stdout.endswith("LOADED ['click', 'onnxruntime']\n"), (result.stdout[-500:], result.stderr)
    assert (tmp_path / "out" / "_SUCCESS").exists()
