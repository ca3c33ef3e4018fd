"""Fixtures that all tests share. Nothing here is automatic: a test gets what it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fakes import Bucket, Buckets, MakeManifest, Row, draw_photo, write_manifest
from hypothesis import settings
from s3_servers import S3Server, moto_server

from tagger.model.bundle import Bundle, NetworkSpec, save_bundle, save_dummy_bundle
from tagger.model.confidence import TARGETS, Calibration
from tagger.model.engine import InputSpec
from tagger.schema import Schema, load_schema

PHOTOS = 12

settings.register_profile("tests", derandomize=True, database=None, deadline=None)
settings.load_profile("tests")  # the same examples on every machine and every day; `make fuzz` looks for new ones


@pytest.fixture(scope="session")
def apparel() -> Schema:
    """The shipped default schema."""
    return load_schema("apparel")


@pytest.fixture(scope="session")
def dummy_bundle(apparel: Schema, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a bundle with the default schema whose scores mean nothing; thresholds for 0.95 and 0.90."""
    folder = str(tmp_path_factory.mktemp("bundles") / "dummy")
    save_dummy_bundle(apparel, folder)
    return folder


@pytest.fixture(scope="session")
def network_bundle(apparel: Schema, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a bundle with a real, small network whose weights are random: both engines can load it."""
    import torch  # here: most tests need neither torch nor the seconds it takes

    from tagger.model.export import export_network
    from tagger.model.net import AttributeNet

    folder = tmp_path_factory.mktemp("bundles") / "network"
    spec = InputSpec(64)
    torch.manual_seed(0)
    net = AttributeNet("tf_efficientnet_lite0", apparel, spec)
    for head in net.heads.values():
        assert isinstance(head, torch.nn.Linear)
        torch.nn.init.normal_(head.weight, std=0.5)
    with torch.no_grad():  # gives the normalisation layers the statistics of some pixels
        for _ in range(3):
            net.train()(torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8))
    export_network(net, folder, spec.size)
    thresholds = {target: {a.name: 0.5 for a in apparel.attributes} for target in TARGETS}
    network = NetworkSpec("tf_efficientnet_lite0", 1280)
    save_bundle(Bundle(str(folder), "random", apparel, spec, network, Calibration(thresholds=thresholds)), str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small photos, photo-00.jpg to photo-11.jpg, all different. For reading only."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(PHOTOS):
        draw_photo(folder / f"photo-{number:02d}.jpg", number)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's S3 server, one for all tests."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def buckets(s3_server: S3Server) -> Iterator[Buckets]:
    """Buckets of that server, behind one proxy."""
    with Buckets(s3_server) as made:
        yield made


@pytest.fixture
def bucket(buckets: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """An empty bucket of the test's own; `tagger` finds its server here and in child processes."""
    for variable, text in {**buckets.variables, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(variable, text)
    return buckets.make()


@pytest.fixture
def make_manifest(tmp_path: Path, photo_folder: Path) -> MakeManifest:
    """`make_manifest(rows, name="manifest.csv")` → path in the test's own folder; the extension says what is written.

    `rows` are dictionaries, or a number: that many products, each with one of the photos of `photo_folder`.
    """

    def make(rows: int | Sequence[Row] = PHOTOS, name: str = "manifest.csv") -> Path:
        if isinstance(rows, int):
            photos = [str(photo_folder / f"photo-{i % PHOTOS:02d}.jpg") for i in range(rows)]
            rows = [{"item_id": f"{i:05d}", "image_uri": photo} for i, photo in enumerate(photos)]
        return write_manifest(tmp_path / name, rows)

    return make
