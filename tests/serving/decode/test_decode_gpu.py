"""Which files a GPU decodes, and that its images equal those of the CPU.

A GPU's decoder cannot run here. A fake takes its calls, and so does nvImageCodec's decoder for the CPU where that is
installed. PyTorch computes on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from serving.decode import gpu, images
from tests.pictures import bad_files, encode, exif, good_files, picture

CPU = torch.device("cpu")


class FakeDecoder:
    """A fake of nvimgcodec.Decoder with OpenCV. It rejects progressive files, as the hardware does."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def decode(self, streams: Sequence[bytes], params: Any) -> list[images.Pixels | None]:
        assert params == {"apply_exif_orientation": False, "color_spec": "sRGB"}
        self.asked += streams
        return [None if b"\xff\xc2" in stream else images.read_jpeg(stream) for stream in streams]


FAKE_CODEC = SimpleNamespace(CodeStream=bytes, DecodeParams=dict, ColorSpec=SimpleNamespace(SRGB="sRGB"))


def with_decoder(decoder: Any) -> gpu.GpuDecoder:
    return gpu.GpuDecoder(gpu.through(FAKE_CODEC, decoder), CPU)


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def assert_like_the_cpu(
    decoder: Any, blobs: Sequence[bytes], threads: ThreadPoolExecutor, levels: float, side: int = 768
) -> None:
    """Statuses and sizes are equal; the pixels of each canvas differ by at most this many levels on average."""
    limits, on_gpu = images.Limits(canvases=(side,)), with_decoder(decoder)
    found, expected = on_gpu.decode(blobs, limits, threads), [images.decode(blob, limits) for blob in blobs]
    assert [(one.status, one.size) for one in found] == [(one.status, one.size) for one in expected]
    differences = np.abs(on_gpu.stack(found, side).numpy() - images.stack(expected, side).astype(int))
    assert differences.mean(axis=(1, 2, 3)).max() <= levels


def test_every_kind_of_file_is_decoded_as_on_the_cpu(threads: ThreadPoolExecutor) -> None:
    files = good_files() | {name: blob for name, (blob, _) in bad_files().items()}
    fake, limits = FakeDecoder(), images.Limits(canvases=(5000,))
    blobs = [*files.values()]
    found = with_decoder(fake).decode(blobs, limits, threads)
    for one, blob in zip(found, blobs, strict=True):
        expected = images.decode(blob, limits)
        assert (one.status, one.size) == (expected.status, expected.size)
        np.testing.assert_array_equal(np.asarray(one.image_rgb), expected.image_rgb)
    plain = ["JPEG", "JPEG progressive", "JPEG grey", "JPEG turned by EXIF", "3 x 5000 JPEG"]
    assert fake.asked == [files[name] for name in (*plain, "half a JPEG with an end marker")]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [640, 60, 37])
def test_images_are_turned_and_shrunk_as_on_the_cpu(orientation: int, side: int, threads: ThreadPoolExecutor) -> None:
    blobs = [encode(picture(), kind, exif=exif(orientation)) for kind in ("JPEG", "PNG")]
    assert_like_the_cpu(FakeDecoder(), blobs, threads, 0.5, side)


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (301, 299), (777, 500), (1234, 1000)])
def test_shrinking_equals_averages_over_areas_by_opencv(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    hw = images.fitted_hw(*shape, 300)
    found = gpu.shrink(torch.from_numpy(noise), hw).numpy()
    assert np.abs(found.astype(int) - images.shrink(noise, hw)).max() <= 1


def fail(streams: Sequence[bytes], params: Any) -> list[Any]:
    raise RuntimeError("out of memory")


def misshape(streams: Sequence[bytes], params: Any) -> list[Any]:
    return [np.zeros((3, 3, 3), np.uint8) for _ in streams]


@pytest.mark.parametrize("decode", [fail, misshape])
def test_the_cpu_decodes_what_the_gpu_cannot(decode: Any, threads: ThreadPoolExecutor) -> None:
    assert_like_the_cpu(SimpleNamespace(decode=decode), [encode(picture(seed=i), "JPEG") for i in range(3)], threads, 0)


def test_the_cpu_decodes_a_huge_photo(threads: ThreadPoolExecutor) -> None:
    fake = FakeDecoder()
    blobs = [encode(Image.new("RGB", (5000, 3300), "teal"), "JPEG"), encode(picture(), "JPEG")]
    assert_like_the_cpu(fake, blobs, threads, 0)
    assert fake.asked == blobs[1:]


def test_no_files_give_no_images(threads: ThreadPoolExecutor) -> None:
    assert with_decoder(FakeDecoder()).decode([], images.Limits(), threads) == []


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([3, 4], [[0, 1]], id="all at once"),
        pytest.param([6, 4, 1], [[0, 1], [2]], id="exactly the limit"),
        pytest.param([11, 2], [[0], [1]], id="one too large goes alone"),
        pytest.param([1, 11, 2], [[0], [1], [2]], id="in order"),
    ],
)
def test_memory_of_one_call_is_bounded(sizes: list[int], expected: list[list[int]]) -> None:
    assert list(gpu.parts_of(list(enumerate(sizes)), 10)) == expected


class OnHost:
    """nvImageCodec's decoder with images as arrays; without a driver it cannot pass them to PyTorch."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    def decode(self, streams: Sequence[Any], params: Any) -> list[images.Pixels | None]:
        found = self.decoder.decode(streams, params=params)
        return [image if image is None else np.array(image) for image in found]


def test_nvimagecodec_takes_these_calls(threads: ThreadPoolExecutor) -> None:
    codec = pytest.importorskip("nvidia.nvimgcodec", exc_type=ImportError)
    decoder = codec.Decoder(
        device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY, backends=[codec.Backend(codec.BackendKind.CPU_ONLY)]
    )
    files = good_files() | {name: blob for name, (blob, _) in bad_files().items()}
    blobs, limits = [*files.values()], images.Limits(canvases=(100, 5000))
    found = gpu.GpuDecoder(gpu.through(codec, OnHost(decoder)), CPU).decode(blobs, limits, threads)
    assert sum(isinstance(one.image_rgb, torch.Tensor) for one in found) >= 4
    for one, blob in zip(found, blobs, strict=True):
        expected = images.decode(blob, limits)
        assert (one.status, one.size) == (expected.status, expected.size)
        assert np.abs(np.asarray(one.image_rgb).astype(int) - expected.image_rgb).max(initial=0) <= 40
