"""From a URI to bytes or to one of the contract's error kinds; and what of a URI may be shown."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest
from fakes import DROP_ROOT, run_python
from hypothesis import given
from hypothesis import strategies as st

from tagger.errors import ImageError, UsageError
from tagger.source.fetch import PhotoSource, mask_uri


def kind_of(source: PhotoSource, uri: str) -> str:
    """The error kind of `uri`, the same for a read and for a probe."""
    with pytest.raises(ImageError) as read:
        source(uri)
    with pytest.raises(ImageError) as probed:
        source.probe(uri)
    assert (read.value.kind, read.value.detail) == (probed.value.kind, probed.value.detail)
    assert read.value.detail
    return read.value.kind


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "a b%20.jpg"
    file.write_bytes(b"photo")
    return file


# -- what is fetched -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["path", "file", "FILE", "localhost", "relative"])
def test_a_local_photo_in_every_form(photo: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    uri = {
        "path": str(photo),
        "file": f"file://{quote(str(photo))}",
        "FILE": f"FILE://{quote(str(photo))}",
        "localhost": f"file://localhost{quote(str(photo))}",
        "relative": photo.name,
    }[form]
    fetched = PhotoSource()(uri)
    assert fetched.data == b"photo"
    assert PhotoSource().probe(uri) == (5, fetched.etag)


def test_the_etag_changes_with_the_file(photo: Path) -> None:
    source = PhotoSource()
    before = source(str(photo)).etag
    assert source(str(photo)).etag == before
    os.utime(photo, ns=(1, 1))
    assert source(str(photo)).etag != before


def test_an_empty_photo_is_fetched_for_the_decoder_to_judge(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    assert PhotoSource()(str(tmp_path / "a.jpg")).data == b""


def test_a_photo_as_large_as_the_limit_is_fetched(photo: Path) -> None:
    assert PhotoSource(max_bytes=5)(str(photo)).data == b"photo"


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"photo")
    assert PhotoSource()(str(tmp_path / name)).data == b"photo"
    assert PhotoSource()(f"file://{tmp_path}/caf%E9.jpg").data == b"photo"


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("", "no_image"),
        ("none.jpg", "not_found"),
        ("a.jpg/b.jpg", "not_found"),
        ("x" * 300, "not_found"),
        ("x/" * 3_000, "not_found"),
        ("nul\0.jpg", "not_found"),
        ("file:///nul%00.jpg", "not_found"),
        ("half\ud800.jpg", "not_found"),
        ("circle", "not_found"),
        ("file://server/share/a.jpg", "not_found"),
        ("file://[/a.jpg", "not_found"),
        ("folder", "not_an_image"),
        ("pipe", "not_an_image"),
        ("socket", "not_an_image"),
        ("/dev/zero", "not_an_image"),
        ("/dev/null", "not_an_image"),
        ("large.jpg", "too_large"),
        ("http://shop/a.jpg", "blocked_address"),
        ("HTTPS://shop/a.jpg", "blocked_address"),
        ("gopher://shop/a.jpg", "blocked_address"),
        ("data://a", "blocked_address"),
    ],
)
def test_the_kind_of_every_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(b"photo")
    Path("circle").symlink_to("circle")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with open("large.jpg", "wb") as large:
        large.truncate(1 << 40)  # never to be read
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert kind_of(PhotoSource(), uri) == kind


def test_a_pipe_with_a_writer_is_refused_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        os.write(end, b"photo")
        assert kind_of(PhotoSource(), str(tmp_path / "pipe")) == "not_an_image"
    finally:
        os.close(end)


def test_a_file_without_a_size_is_read_up_to_the_limit() -> None:
    assert os.stat("/proc/self/status").st_size == 0
    assert PhotoSource()("/proc/self/status").data.startswith(b"Name:")
    with pytest.raises(ImageError, match="too_large"):
        PhotoSource(max_bytes=10)("/proc/self/status")


def test_a_photo_that_may_not_be_read() -> None:
    code = f"""
import sys
from tagger.errors import ImageError
from tagger.source.fetch import PhotoSource
{DROP_ROOT}
for name in sys.argv[1:]:
    try:
        print(PhotoSource()(name).data)
    except ImageError as error:
        print(error.kind)
"""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name, mode in (("open.jpg", 0o644), ("closed.jpg", 0o000), ("shut/a.jpg", 0o644)):
            file = Path(folder, name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"photo")
            file.chmod(mode)
        Path(folder, "shut").chmod(0o000)
        names = [f"{folder}/{name}" for name in ("open.jpg", "closed.jpg", "shut/a.jpg")]
        assert run_python(code, *names).stdout.split() == ["b'photo'", "forbidden", "forbidden"]
        Path(folder, "shut").chmod(0o755)


def test_no_descriptor_stays_open(photo: Path) -> None:
    source = PhotoSource(max_bytes=10)
    os.mkfifo(photo.parent / "pipe")
    (photo.parent / "large.jpg").write_bytes(b"x" * 11)
    before = os.listdir("/proc/self/fd")
    for name in (photo.name, "pipe", "large.jpg", "none.jpg"):
        for look in (source, source.probe):
            try:
                look(str(photo.parent / name))
            except ImageError:
                continue
    assert os.listdir("/proc/self/fd") == before


# -- --root --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "photos").mkdir(parents=True)
    for file in (root / "photos" / "a.jpg", tmp_path / "outside.jpg", tmp_path / "shop-of-another.jpg"):
        file.write_bytes(b"photo")
    (root / "inner.jpg").symlink_to("photos/a.jpg")
    (root / "absolute.jpg").symlink_to(root / "photos" / "a.jpg")
    (root / "leak.jpg").symlink_to("../outside.jpg")
    (root / "leaking").symlink_to("..")
    return root


@pytest.mark.parametrize(
    "name", ["photos/a.jpg", "photos/../photos/a.jpg", "inner.jpg", "absolute.jpg", "leaking/shop/inner.jpg"]
)
def test_paths_that_stay_in_the_root(shop: Path, name: str) -> None:
    assert PhotoSource(root=str(shop))(str(shop / name)).data == b"photo"
    assert PhotoSource(root=f"file://{shop}")(f"file://{shop}/{name}").data == b"photo"


@pytest.mark.parametrize(
    "name",
    ["../outside.jpg", "../shop-of-another.jpg", "leak.jpg", "leaking/outside.jpg", "/etc/hostname", "../none.jpg"],
)
def test_paths_that_leave_the_root(shop: Path, name: str) -> None:
    assert kind_of(PhotoSource(root=str(shop)), os.path.join(shop, name)) == "outside_root"
    assert kind_of(PhotoSource(root=str(shop)), f"file://{os.path.join(shop, name)}") == "outside_root"


def test_percent_encoded_dots_do_not_leave_the_root(shop: Path) -> None:
    assert kind_of(PhotoSource(root=str(shop)), f"file://{shop}/%2e%2e/outside.jpg") == "outside_root"


def test_other_kinds_hold_inside_the_root(shop: Path) -> None:
    source = PhotoSource(root=str(shop))
    assert kind_of(source, str(shop / "none.jpg")) == "not_found"
    assert kind_of(source, str(shop / "photos")) == "not_an_image"
    assert kind_of(source, str(shop / "nul\0.jpg")) == "not_found"
    assert kind_of(source, "http://shop/a.jpg") == "blocked_address"


def test_the_root_may_be_a_link_or_relative(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop.parent / "link").symlink_to("shop")
    monkeypatch.chdir(shop.parent)
    for root in ("shop", "shop/", "link", "."):
        assert PhotoSource(root=root)(str(shop / "inner.jpg")).data == b"photo"


@pytest.mark.parametrize("root", ["none", "outside.jpg", "s3://bucket/photos"])
def test_a_root_that_is_no_folder_is_refused(shop: Path, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.parent)
    with pytest.raises(UsageError, match=f"--root {root}"):
        PhotoSource(root=root)


@pytest.mark.parametrize("place", ["photos/a.jpg", "photos/deep/a.jpg"])
def test_a_folder_that_becomes_a_link_at_the_last_moment_does_not_leak(
    shop: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    secret = shop.parent / place
    for file in (secret, shop / place):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"photo")
    open_now = os.open

    def swap_and_open(path: str, flags: int) -> int:
        (shop / "photos").rename(shop / "photos-before")
        (shop / "photos").symlink_to("../photos")
        return open_now(path, flags)

    source = PhotoSource(root=str(shop))
    monkeypatch.setattr(os, "open", swap_and_open)
    with pytest.raises(ImageError, match="outside_root"):
        source(str(shop / place))


# -- what may be shown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "masked"),
    [
        ("photos/a@b:c?sig=1.jpg", "photos/a@b:c?sig=1.jpg"),
        ("/photos/a?token=1.jpg", "/photos/a?token=1.jpg"),
        ("file:///photos/a@b?token=1.jpg", "file:///photos/a@b?token=1.jpg"),
        ("", ""),
        ("https://shop/a@2x.jpg?v=3&w=400#top", "https://shop/a@2x.jpg?v=3&w=400#top"),
        ("https://shop:8443/a.jpg", "https://shop:8443/a.jpg"),
        ("https://[2001:db8::1]:8443/a.jpg", "https://[2001:db8::1]:8443/a.jpg"),
        ("https://user:pass@shop:8443/a.jpg", "https://***@shop:8443/a.jpg"),
        ("https://user@shop/a.jpg", "https://***@shop/a.jpg"),
        ("https://user:p@ss:w@shop/a.jpg?w=1", "https://***@shop/a.jpg?w=1"),
        ("https://user:pass@[::1]/a.jpg", "https://***@[::1]/a.jpg"),
        ("https://user:pa/ss@shop/a.jpg", "https://***"),
        ("https://user:pa?ss@shop/a.jpg", "https://***"),
        ("https://[::1/a.jpg?sig=1", "https://***"),
        ("ht tp://user:pass@shop/a.jpg", "ht tp://***@shop/a.jpg"),
        (" https://user:pass@shop/a.jpg", " https://***@shop/a.jpg"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("s3://arn:aws:s3:eu-west-1:1:accesspoint/x/a.jpg", "s3://arn:aws:s3:eu-west-1:1:accesspoint/x/a.jpg"),
        (
            "https://b.s3.amazonaws.com/a.jpg?X-Amz-Algorithm=AWS4&X-Amz-Credential=K&X-Amz-Date=D&versionId=7"
            "&X-Amz-Signature=S&x-id=GetObject",
            "https://b.s3.amazonaws.com/a.jpg?X-Amz-Algorithm=***&X-Amz-Credential=***&X-Amz-Date=***&versionId=7"
            "&X-Amz-Signature=***&x-id=GetObject",
        ),
        ("https://b/a.jpg?AWSAccessKeyId=K&Signature=a%2Fb%3D&Expires=9", "https://b/a.jpg?AWSAccessKeyId=***&Signature=***&Expires=***"),
        ("https://c.blob.core.windows.net/a.jpg?sv=2&se=3&sr=b&sig=x%2B", "https://c.blob.core.windows.net/a.jpg?sv=***&se=***&sr=***&sig=***"),
        ("https://d.cloudfront.net/a.jpg?Policy=P_&Signature=S~&Key-Pair-Id=K", "https://d.cloudfront.net/a.jpg?Policy=***&Signature=***&Key-Pair-Id=***"),
        ("https://g/a.jpg?GoogleAccessId=a@b&X-Goog-Signature=s", "https://g/a.jpg?GoogleAccessId=***&X-Goog-Signature=***"),
        ("https://shop/a.jpg?X%2DAmz%2DSignature=s", "https://shop/a.jpg?X%2DAmz%2DSignature=***"),
        ("https://shop/a.jpg?w=1;token=s&h=2", "https://shop/a.jpg?w=1;token=***&h=2"),
        ("https://shop/a.jpg#access_token=s", "https://shop/a.jpg#access_token=***"),
        ("https://shop/a.jpg?sig=", "https://shop/a.jpg?sig=***"),
        ("https://shop/a.jpg?sig", "https://shop/a.jpg?sig"),
        ("https://proxy/?url=https://u:p@shop/a.jpg?sig=s&w=1", "https://proxy/?url=https://***@shop/a.jpg?sig=***&w=1"),
        (
            "https://proxy/?w=1&url=https%3A%2F%2Fu%3Ap%40shop%2Fa.jpg%3Fsig%3Ds%26h%3D2",
            "https://proxy/?w=1&url=https%3A%2F%2F***@shop%2Fa.jpg%3Fsig%3D***%26h%3D2",
        ),
        ("https://proxy/https%253A%252F%252Fshop%252Fa.jpg%253Fsig%253Ds", "https://proxy/https%253A%252F%252Fshop%252Fa.jpg%253Fsig%253D***"),
    ],
)  # fmt: skip
def test_mask_uri(uri: str, masked: str) -> None:
    assert mask_uri(uri) == masked
    assert mask_uri(masked) == masked


SECRET = "S3cR3t"
url_text = st.text(st.characters(codec="ascii", categories=["L", "N"]) | st.sampled_from("-._~ 가\n\t"), max_size=6)
secret_name = st.sampled_from(
    ["X-Amz-Signature", "x-amz-security-token", "sig", "Signature", "Policy", "Key-Pair-Id", "token", "api_key", "se"]
)


@st.composite
def secret_urls(draw: st.DrawFn) -> str:
    """A URL with the secret in its user info, in a parameter, or in a URL inside it."""
    secret = draw(url_text) + SECRET + draw(st.text(st.sampled_from("abc123+/=%_~"), max_size=6))
    plain = st.tuples(st.sampled_from(["v", "w", "key", "", "q"]), url_text).map("=".join)
    host = draw(st.sampled_from(["shop", "shop:80", "[::1]", "[::1]:80", "한국.kr", ""]))
    if draw(st.booleans()):
        user = draw(url_text) + draw(st.sampled_from(["", ":", "@", ":@"])) + secret.replace("/", "")
        url = f"https://{user}@{host}/{draw(url_text)}"
        tail = draw(st.sampled_from(["", "?", "#", "?a=1"])) + draw(url_text)
    else:
        name = draw(secret_name)
        name = draw(st.sampled_from([name, name.upper(), name.replace("-", "%2D")]))
        parameters = [*draw(st.lists(plain, max_size=2)), f"{name}={secret}", *draw(st.lists(plain, max_size=2))]
        url = f"https://{host}/{draw(url_text)}"
        tail = draw(st.sampled_from(["?", "#", "?a#", "?a?"])) + draw(st.sampled_from("&;")).join(parameters)
    for _ in range(draw(st.integers(0, 2))):
        url, tail = f"https://proxy/{draw(url_text)}?url=" + quote(url + tail, safe=""), ""
    return draw(st.sampled_from(["", " "])) + url + tail


@given(secret_urls())
def test_no_secret_is_ever_shown(uri: str) -> None:
    assert SECRET in uri
    masked = mask_uri(uri)
    assert SECRET not in masked
    assert mask_uri(masked) == masked


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_can_be_masked(start: str, end: str) -> None:
    for text in (start, f"{start}://{end}", f"https://{start}?{end}", f"https://[{start}]:{end}"):
        once = mask_uri(text)
        assert mask_uri(once) == once
