"""From bytes to pixels: every odd image in its kind, the same in every thread, in bounded memory."""

from __future__ import annotations

import functools
import io
import json
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps, features
from source.image_corpus import (
    HEIGHT,
    WIDTH,
    Case,
    chunk,
    corpus,
    encode,
    exif,
    image,
    png,
    quadrants,
    shown,
    stored,
    tiff,
    translucent,
    with_segment,
)

from tagger.errors import ImageError
from tagger.source import decode as module
from tagger.source.decode import Decoded, _Memory, decode
from tagger.source.formats import sniff

SIZE = 64
CASES = corpus()


def outcome(data: bytes, size: int = SIZE) -> tuple[str, bytes, int, int]:
    """(ok or the error kind, pixels, width, height): what two decodes of the same bytes must have in common."""
    try:
        pixels, width, height = decode(data, size)
    except ImageError as error:
        return error.kind, error.detail.encode(), 0, 0
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    return "ok", pixels.tobytes(), width, height


def scene(width: int, height: int) -> Image.Image:
    """A picture with slopes, edges and fine lines, the like of a photo."""
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1)
    rings = ((x - width // 2) ** 2 + (y - height // 3) ** 2) // (width * 9) % 2 * 60
    return Image.fromarray(np.clip(slopes * 3 // 4 + rings[..., None], 0, 255).astype(np.uint8))


# ---- the corpus -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_odd_image_comes_to_its_pixels_or_its_kind(case: Case) -> None:
    kind, detail, *_ = outcome(case.data)
    assert kind == case.expect, detail if kind != "ok" else "was decoded"
    if kind != "ok":
        assert 10 < len(detail.decode()) < 300
        assert "\n" not in detail.decode()
    elif case.check is not None:
        case.check(decode(case.data, SIZE))


def test_corpus_has_every_kind_that_a_decoder_can_say() -> None:
    kinds = {case.expect for case in CASES}
    assert kinds >= {"ok", "not_an_image", "unsupported_format", "too_many_pixels", "truncated", "corrupt"}
    assert len(CASES) >= 80


def test_four_threads_at_once_see_what_one_sees_alone() -> None:
    alone = [outcome(case.data) for case in CASES]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda case: outcome(case.data), CASES * 3, chunksize=1))
    different = [case.name for case, one, many in zip(CASES * 3, alone * 3, together, strict=True) if one != many]
    assert different == []


def test_decoding_leaves_no_trace_in_the_process() -> None:
    def state() -> tuple[object, ...]:
        pillow = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, dict(Image.OPEN), dict(Image.EXTENSION)
        return list(warnings.filters), warnings.showwarning, pillow

    before = state()
    for case in CASES:
        outcome(case.data)
    assert state() == before


MEASURE = """
import json, pickle, sys
from tagger.errors import ImageError
from tagger.source.decode import decode

def peak():  # of the resident memory, in bytes
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

files = pickle.load(open(sys.argv[1], "rb"))
decode(files[0][1], 224)
start, growth = peak(), {}
for name, data in files:
    before = peak()
    try:
        decode(data, 224)
    except ImageError:
        pass
    growth[name] = peak() - before
print(json.dumps([peak() - start, growth]))
"""


def peak_memory(files: list[tuple[str, bytes]], folder: Path) -> tuple[int, dict[str, int]]:
    """Bytes by which the peak of a fresh process grew over all files, and at each file that raised it."""
    packed = folder / "files"
    packed.write_bytes(pickle.dumps(files))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(packed)], capture_output=True, text=True, check=True, timeout=600
    )
    total, growth = json.loads(done.stdout)
    return total, growth


def test_no_file_of_the_corpus_takes_much_memory(tmp_path: Path) -> None:
    total, growth = peak_memory([(case.name, case.data) for case in CASES], tmp_path)
    worst = sorted(growth, key=lambda name: -growth[name])[:3]
    assert total < 40_000_000, f"{total:,} bytes, most of them at {worst}"


@pytest.mark.parametrize("name", ["png_rgba", "png_palette", "png_16_bit", "png_turned", "tiff_float", "tiff_cmyk"])
def test_large_image_takes_little_more_than_its_own_pixels(name: str, tmp_path: Path) -> None:
    side = 4000
    flat = Image.new("L", (side, side), 100)
    rgb = Image.merge("RGB", (flat, flat, flat))
    half = ImageOps.invert(flat)
    deflate: dict[str, Any] = {"compression": "tiff_adobe_deflate"}
    data = {
        "png_rgba": lambda: encode(Image.merge("RGBA", (*rgb.split(), half)), "PNG", compress_level=1),
        "png_palette": lambda: encode(flat.convert("P"), "PNG", compress_level=1, transparency=bytes(range(256))),
        "png_16_bit": lambda: encode(flat.convert("I;16"), "PNG", compress_level=1),
        "png_turned": lambda: encode(rgb, "PNG", compress_level=1, exif=b"Exif\x00\x00" + exif(6)),
        "tiff_float": lambda: encode(flat.convert("F"), "TIFF", **deflate),
        "tiff_cmyk": lambda: encode(rgb.convert("CMYK"), "TIFF", **deflate),
    }[name]()
    total, _ = peak_memory([("small", encode(image(), "PNG")), (name, data)], tmp_path)
    assert total < side * side * 5 + 60_000_000


# ---- the pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(300, 300), (1500, 2000), (641, 427), (224, 100), (30, 20)])
def test_ordinary_jpeg_is_exactly_what_pillow_alone_gives(mode: str, size: tuple[int, int]) -> None:
    data = encode(scene(*size).convert(mode), "JPEG", quality=85)
    with Image.open(io.BytesIO(data)) as opened:
        scale = 224 / max(size)
        opened.draft(None, (int(size[0] * scale), int(size[1] * scale)))
        fitted = round(size[0] * scale), round(size[1] * scale)
        resized = opened.convert("RGB").resize(fitted, Image.Resampling.BICUBIC, reducing_gap=3.0)
    expected = np.full((224, 224, 3), 255, np.uint8)
    top, left = (224 - fitted[1]) // 2, (224 - fitted[0]) // 2
    expected[top : top + fitted[1], left : left + fitted[0]] = np.asarray(resized)
    assert np.array_equal(decode(data, 224).pixels, expected)


@pytest.mark.parametrize("size", [(1600, 1200), (1000, 2504)])
def test_jpeg_scaled_while_decoding_is_close_to_the_full_decode(size: tuple[int, int]) -> None:
    picture = scene(*size)
    scaled = decode(encode(picture, "JPEG", quality=92), 224).pixels.astype(int)
    full = decode(encode(picture, "PNG", compress_level=1), 224).pixels.astype(int)
    assert np.abs(scaled - full).mean() < 1.5


@settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(width=st.integers(1, 400), height=st.integers(1, 400), size=st.integers(1, 100))
def test_aspect_is_kept_and_the_padding_is_white_and_centred(width: int, height: int, size: int) -> None:
    decoded = decode(encode(Image.new("RGB", (width, height)), "PNG"), size)
    dark = decoded.pixels[..., 0] < 128
    assert np.all((decoded.pixels == 0) | (decoded.pixels == 255))
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    assert dark[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert max(len(rows), len(columns)) == size
    assert abs(len(columns) - max(1, size * width / max(width, height))) <= 1
    assert abs(len(rows) - max(1, size * height / max(width, height))) <= 1
    for first, last in ((rows[0], rows[-1]), (columns[0], columns[-1])):
        assert abs(first - (size - 1 - last)) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(90, 61), (300, 500)])
def test_turned_photo_is_the_upright_one_to_the_last_bit(orientation: int, shape: tuple[int, int]) -> None:
    upright = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    turned = png(stored(upright, orientation), before=chunk(b"eXIf", exif(orientation)))
    expected, found = decode(png(upright), SIZE), decode(turned, SIZE)
    assert found[1:] == expected[1:] == (shape[1], shape[0])
    assert np.array_equal(found.pixels, expected.pixels)


def deep_grey(width: int, height: int) -> bytes:
    """A 16-bit grey PNG whose low bytes are noise."""
    grey = np.asarray(scene(width, height).convert("L")).astype(np.uint16)
    noise = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint16)
    deep: npt.NDArray[np.uint16] = grey * 256 + noise
    return encode(Image.fromarray(deep), "PNG")


@functools.cache
def large_files() -> dict[str, bytes]:
    """Files of every kind of conversion, 701 × 503."""
    picture = scene(701, 503)
    rgba = picture.copy()
    rgba.putalpha(picture.getchannel("R"))
    real = np.asarray(picture.convert("L")).astype(np.float32)
    return {
        "rgb": encode(picture, "PNG"),
        "rgb_turned": with_segment(encode(picture, "JPEG", quality=95), 0xE1, b"Exif\x00\x00" + exif(6)),
        "rgba": encode(rgba, "PNG"),
        "palette": encode(picture.quantize(200), "PNG", transparency=bytes(range(200))),
        "grey_16_bit": deep_grey(701, 503),
        "float": encode(Image.fromarray(real), "TIFF"),
        "cmyk": encode(picture.convert("CMYK"), "TIFF"),
        "gif": encode(picture.quantize(64), "GIF"),
    }


STRIPPED = ("rgb", "rgb_turned", "rgba", "palette", "grey_16_bit", "float", "cmyk", "gif")


@pytest.mark.parametrize("name", STRIPPED)
def test_large_image_in_strips_looks_like_the_same_in_one_piece(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = large_files()[name]
    whole = decode(data, SIZE)
    monkeypatch.setattr(module, "_STRIP_PIXELS", 20_000)
    strips = decode(data, SIZE)
    assert strips[1:] == whole[1:]
    difference = np.abs(strips.pixels.astype(int) - whole.pixels.astype(int))
    assert difference.mean() < 1.5
    assert np.array_equal(shown(strips).shape, shown(whole).shape)


def test_white_level_is_one_for_all_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.zeros((200, 200), np.float32)
    real[:100] = 0.5
    real[100:] = 1000.0
    monkeypatch.setattr(module, "_STRIP_PIXELS", 200 * 20)
    pixels = decode(encode(Image.fromarray(real), "TIFF"), SIZE).pixels
    assert pixels[10].max() <= 1
    assert pixels[50].min() == 255


def test_transparent_pixels_are_white_whatever_colour_they_hide() -> None:
    picture = translucent()
    for data in (encode(picture, "PNG"), encode(picture, "WEBP", lossless=True, exact=True), encode(picture, "TIFF")):
        assert np.array_equal(decode(data, 48).pixels[10, 36], (255, 255, 255))


def test_embedded_profile_changes_no_pixel() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image_format in ("JPEG", "PNG", "TIFF", "WEBP"):
        plain, tagged = encode(image(), image_format), encode(image(), image_format, icc_profile=profile)
        assert tagged != plain
        assert outcome(tagged) == outcome(plain)


def test_metadata_does_not_reach_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Image.Exif, "load", lambda self, data: seen.append(data))
    monkeypatch.setattr(Image.Exif, "load_from_fp", lambda self, file, offset=None: seen.append(file))
    block = b"Exif\x00\x00" + exif(6)
    for image_format in ("JPEG", "PNG", "WEBP"):
        assert outcome(encode(image(), image_format, exif=block))[2:] == (HEIGHT, WIDTH)
    assert seen == []


# ---- limits and codecs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_limit_counts_declared_pixels(image_format: str) -> None:
    data = encode(image(), image_format)
    assert decode(data, SIZE, max_pixels=WIDTH * HEIGHT)[1:] == (WIDTH, HEIGHT)
    with pytest.raises(ImageError) as caught:
        decode(data, SIZE, max_pixels=WIDTH * HEIGHT - 1)
    assert caught.value.kind == "too_many_pixels"
    assert "48×32" in caught.value.detail


@pytest.mark.parametrize("image_format", ["WEBP", "AVIF"])
def test_pillow_without_a_codec_is_a_kind_of_its_own(image_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(image(), image_format)
    monkeypatch.setattr(features, "check", lambda feature: False)
    assert outcome(data)[0] == "missing_codec"


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    kind, detail, *_ = outcome(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(99))
    assert (kind, b"tagger[heic]" in detail) == ("missing_codec", True)


def test_flood_of_metadata_is_refused_before_it_costs_much() -> None:
    jpeg, flood = encode(image(), "JPEG"), b"\xff\xe5\x00\x02" * 200_000
    assert outcome(jpeg[:2] + flood + jpeg[2:])[0] == "corrupt"
    flood = (chunk(b"abCd", b"") + chunk(b"IDAT", b"")) * 20_000
    assert outcome(png(quadrants(), before=flood))[0] == "corrupt"
    strips = tiff(bytes(1_200_000), {256: (4, 1), 257: (4, 300_000), 258: (3, 8), 262: (3, 1), 273: (4, [8] * 300_000)})
    assert outcome(strips)[0] == "corrupt"


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (65500, 40), (40, 65500), (65500, 1)])
def test_extreme_aspect_becomes_a_thin_line(size: tuple[int, int]) -> None:
    decoded = decode(encode(Image.new("RGB", size, (10, 20, 200)), "JPEG"), 224)
    assert decoded[1:] == size
    assert min(shown(decoded).shape[:2]) == 1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"II*\x00", "TIFF"),
        (b"MM\x00*", "TIFF"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "WEBP"),
        (b"BM" + bytes(12) + b"\x28\x00\x00\x00", "BMP"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1miafavif", "AVIF"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1miafavif", "AVIF"),
        (b"\x00\x00\x00\x18ftypavis\x00\x00\x00\x00avis", "AVIF"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIF"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heix", "HEIF"),
        (b"\x00\x00\x00\x18ftypmsf1\x00\x00\x00\x00msf1hevc", "HEIF"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42", None),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", None),
        (b"BMW in all colours, leather", None),
        (b"II+\x00", None),
        (b"\xff\xd8", None),
        (b"", None),
    ],
)
def test_format_is_told_by_magic_bytes(data: bytes, expected: str | None) -> None:
    assert sniff(data) == expected


# ---- whatever else somebody sends -----------------------------------------------------------------------------------

GOOD = [case.data for case in CASES if case.expect == "ok" and len(case.data) < 20_000]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good image with some bytes flipped, cut out, put in or moved, mostly near its start."""
    data = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.one_of(st.integers(0, min(len(data), 120)), st.integers(0, len(data))))
        how = draw(st.sampled_from(("flip", "set", "cut", "insert", "end", "number")))
        if how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set" and at < len(data):
            data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFE, 0xFF)))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif how == "end":
            del data[at:]
        else:
            data[at : at + 4] = draw(
                st.sampled_from((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)))
            )
    return bytes(data)


@settings(deadline=None, database=None, derandomize=True, max_examples=1000)
@given(mutated())
def test_mutated_image_is_decoded_or_refused_and_nothing_else(data: bytes) -> None:
    outcome(data)


@settings(deadline=None, database=None, derandomize=True, max_examples=300)
@given(st.sampled_from([case.data[:24] for case in CASES]), st.binary(max_size=200))
def test_random_bytes_after_a_good_start_are_decoded_or_refused(start: bytes, rest: bytes) -> None:
    outcome(start + rest)


def test_result_is_what_the_batch_needs() -> None:
    decoded = decode(encode(image(), "JPEG"), 96)
    assert isinstance(decoded, Decoded)
    assert decoded.pixels.shape == (96, 96, 3)
    pixels: npt.NDArray[np.uint8] = decoded.pixels
    assert pixels.flags["C_CONTIGUOUS"]


# -- memory ---------------------------------------------------------------------------------------------------------


def test_large_photos_wait_for_each_other_and_small_ones_do_not() -> None:
    memory = _Memory(500)
    entered = threading.Event()

    def another() -> None:
        with memory.taken(300):
            entered.set()

    with memory.taken(300), memory.taken(100):  # fits beside it
        waiting = threading.Thread(target=another)
        waiting.start()
        assert not entered.wait(0.1)
    assert entered.wait(10)
    waiting.join()
    with memory.taken(10_000), pytest.raises(ZeroDivisionError), memory.taken(0):  # more than all: alone, not never
        raise ZeroDivisionError
    with memory.taken(500):  # all of it came back, also after an error
        pass


@pytest.mark.parametrize(
    ("options", "per_pixel"),
    [
        ({"format": "PNG"}, 6),
        ({"format": "WEBP"}, 16),
        ({"format": "JPEG"}, 0.1),
        ({"format": "JPEG", "progressive": True}, 6),
    ],
)
def test_a_decode_holds_the_memory_of_its_format(
    options: dict[str, Any], per_pixel: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Noted(_Memory):
        def taken(self, wanted: int) -> Any:
            asked.append(wanted)
            return super().taken(wanted)

    monkeypatch.setattr(module, "_memory", Noted(10**9))
    file = io.BytesIO()
    Image.new("RGB", (200, 100), (9, 9, 9)).save(file, **options)
    decode(file.getvalue(), 32)
    assert asked == [int(200 * 100 * per_pixel)]
