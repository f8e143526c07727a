"""The command line against a KServe v2 server over real gRPC: what it prints, saves and returns."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlclip
from tests.client.command import VERSION, Run, cells, objects, process
from tests.client.conftest import FakeTriton, never
from vlclip import cli
from vlclip.cli.photos import Photos


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six photos, one of which is not an image and one of which cannot be read, and a file with another suffix."""
    monkeypatch.chdir(tmp_path)
    photos = Path("photos")
    for name, content in {
        "1.jpg": "1",
        "[2].JPG": "2",
        "a/3.png": "3",
        "a/broken.webp": "not a number",
        "b/5.jpeg": "5",
        "notes.txt": "7",
    }.items():
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text(content)
    (photos / "a/gone.jpg").symlink_to("nowhere.jpg")
    return photos


STATES = {
    "photos/1.jpg": "grounded",
    "photos/[2].JPG": "grounded",
    "photos/a/3.png": "grounded",
    "photos/a/broken.webp": "not_an_image",
    "photos/a/gone.jpg": "unreadable",
    "photos/b/5.jpeg": "grounded",
}
"""In the order of the output."""


def test_json_of_a_folder(run: Run, folder: Path) -> None:
    code, out, err = run("embed-image", folder, "--type", "mug", "--query", "2", "--json")
    rows = objects(out)
    assert code == cli.NOT_DECODED
    assert [(row["path"], row["status"]) for row in rows] == list(STATES.items())
    assert rows[2] == {
        "path": "photos/a/3.png",
        "type": "mug",
        "status": "grounded",
        "score": 0.5,
        "box_xyxy": [3, 4, 5, 6],
        "truncated": False,
        "similarity": 6,  # [3, 3, 0] @ [2, 0, 0]
        "embedding": [3, 3, 0],
        "version": VERSION,
    }
    assert rows[3] == {"path": "photos/a/broken.webp", "type": "mug", "status": "not_an_image", "version": VERSION}
    assert rows[4]["reason"] == "No such file or directory"
    assert err == "6 photos: 4 grounded, 1 not an image, 1 unreadable\n"


def test_table_of_a_folder(run: Run, folder: Path) -> None:
    code, out, err = run("embed-image", folder, "--type", "mug", "--query", "1")
    assert code == cli.NOT_DECODED
    assert cells(out) == [
        ["file", "status", "score", "box", "similarity", "embedding"],
        ["photos/1.jpg", "grounded", "0.50", "1 2 3 4", "1.000", "+1.000 +3.000 +0.000 …"],
        ["photos/[2].JPG", "grounded", "0.50", "2 3 4 5", "2.000", "+2.000 +3.000 +0.000 …"],
        ["photos/a/3.png", "grounded", "0.50", "3 4 5 6", "3.000", "+3.000 +3.000 +0.000 …"],
        ["photos/a/broken.webp", "not an image"],
        ["photos/a/gone.jpg: No such file or directory", "unreadable"],
        ["photos/b/5.jpeg", "grounded", "0.50", "5 6 7 8", "5.000", "+5.000 +3.000 +0.000 …"],
    ]
    assert "6 photos" in err


@pytest.mark.parametrize(
    ("given", "found"),
    [
        pytest.param(["1.jpg"], ["1.jpg"], id="a file"),
        pytest.param(["notes.txt"], ["notes.txt"], id="a file of any name"),
        pytest.param(["b", "a"], ["b/5.jpeg", "a/3.png", "a/broken.webp", "a/gone.jpg"], id="folders"),
        pytest.param(["*.txt", "*/*.png"], ["notes.txt", "a/3.png"], id="patterns"),
        pytest.param(["**/*.jp*g"], ["1.jpg", "b/5.jpeg"], id="a pattern of any depth"),
        pytest.param(["[2].JPG"], ["[2].JPG"], id="a file that looks like a pattern"),
    ],
)
def test_which_photos_are_found(run: Run, folder: Path, given: list[str], found: list[str]) -> None:
    _, out, _ = run("embed-image", *(folder / one for one in given), "--whole", "--json")
    assert [row["path"] for row in objects(out)] == [str(folder / one) for one in found]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_embeddings_are_saved_row_by_row(run: Run, folder: Path, suffix: str) -> None:
    out = Path(f"mugs{suffix}")
    code, _, err = run("embed-image", folder, "--type", "mug", "--out", out)
    assert code == cli.NOT_DECODED
    assert err.splitlines()[:-1] == [
        "vlclip: photos/a/broken.webp: not an image",
        "vlclip: photos/a/gone.jpg: No such file or directory",
    ]
    of_version = f", version {VERSION}" if suffix == ".npy" else ""  # there is no column for it
    assert err.endswith(f"6 photos: 4 grounded, 1 not an image, 1 unreadable; {out}: embeddings [6, 3]{of_version}\n")
    embedding = [[1, 3, 0], [2, 3, 0], [3, 3, 0], [0, 0, 0], [0, 0, 0], [5, 3, 0]]
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(out), np.array(embedding, np.float32), strict=True)
    else:
        with np.load(out) as saved:
            assert {"path", "type", "embedding", "status", "reason", "score", "box_xyxy"} <= set(saved)
            np.testing.assert_array_equal(saved["embedding"], np.array(embedding, np.float32), strict=True)
            assert dict(zip(saved["path"], saved["status"], strict=True)) == STATES
            assert saved["box_xyxy"].tolist()[-1] == [5, 6, 7, 8]
            assert saved["version"].tolist() == [VERSION] * 4 + ["", VERSION]
    assert sorted(Path().iterdir()) == [out, folder]


def test_lines_of_standard_input(triton: FakeTriton) -> None:
    with process("embed-text", "7", "-", "--json", "--address", triton.address) as vl:
        out, _ = vl.communicate("1\n\ngrün\r\n".encode())
    assert vl.returncode == cli.OK
    assert [row["text"] for row in objects(out)] == ["7", "1", "", "grün"]


USAGE_ERRORS = {
    "embed-image nowhere.jpg --whole": "nowhere.jpg: no such file or folder",
    "embed-image '*.gif' --whole": "*.gif: found no photos",
    "embed-image photos/a/.. empty --whole --out x.txt": "ends in .npy, .npz, .jsonl or .parquet, got x.txt",
    "embed-image photos --whole --out photos.npz/x.npz": "there is no folder photos.npz",
    "embed-image --whole": "expected photos, folders or patterns, or --table",
    "embed-image photos": '--type: expected the product to find in each photo, such as "coffee mug", or --whole',
    "embed-image photos --table t.csv": "got both",
    "embed-image --table t.csv --whole": "t.csv: No such file",
    "embed-image --table latin1.txt --whole": "--table: expected a name that ends in .csv",
    "embed-image --table files.csv --whole": "files.csv to have the columns path, got: file,type",
    "embed-image --table paths.csv": "paths.csv to have the columns path, type, got: path",
    "embed-text --table paths.csv": "paths.csv to have the columns text or title, got: path",
    "ground --table paths.csv --type x --draw found": "--draw: expected photos as arguments",
    "enrich": "expected --title, --description or --type",
    "enrich --title x --table t.csv": "got both",
    "embed-text 1 --max-in-flight 0": "--max-in-flight: expected 1 or more",
    "embed-text": "expected texts, - for the lines of standard input",
    "embed-image photos --whole --out no/x.npy": "there is no folder no",
    "embed-image empty --whole": "empty: found no photos",
    "embed-text 1 --timeout 0": "--timeout: expected request as a number",
    "embed-text 1 --header token": '--header: expected NAME:VALUE, got "token"',
    "embed-text 1 --ca nowhere.pem": "nowhere.pem: No such file",
    "embed-text 1 --cert c.pem": "--tls: expected both a certificate and its key",
    "health --address https://localhost:8000": "Remove the scheme and the path, and pass --tls for an encrypted",
    "health --address localhost": '--address: expected "host:port"',
    "ground photos/1.jpg --type x --draw photos/1.jpg": "is the photo itself",
    "ground photos/1.jpg --type x --draw x.gif": "ends in .jpg, .jpeg,",
    "ground photos --type x --draw photos": "is among the photos",
    "ground photos --type x --draw photos/new": "is among the photos",
    "ground photos/*.* --type x --draw photos": "is among the photos",
    "ground photos --type x --draw latin1.txt": "expected a folder for several",
}


@pytest.mark.parametrize(("arguments", "message"), USAGE_ERRORS.items(), ids=list(USAGE_ERRORS))
@pytest.mark.usefixtures("folder")
def test_usage(triton: FakeTriton, run: Run, arguments: str, message: str) -> None:
    Path("empty").mkdir()
    Path("latin1.txt").write_bytes("grün".encode("latin-1"))
    Path("files.csv").write_text("file,type\n1.jpg,mug\n")
    Path("paths.csv").write_text("path\n1.jpg\n")
    code, out, err = run(*shlex.split(arguments))
    assert (code, out) == (cli.USAGE, "")
    assert err.startswith("vlclip: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert triton.infer_requests == []


@pytest.mark.parametrize(
    ("given", "out", "photo", "expected"),
    [
        (["photos/1.jpg"], "found.png", "photos/1.jpg", "found.png"),
        (["photos/1.jpg"], "found", "photos/1.jpg", "found/1.jpg"),
        (["photos/1.jpg", "photos/a/3.png"], "found", "photos/a/3.png", "found/a/3.png"),
        (["photos"], "found", "photos/a/3.png", "found/a/3.png"),
        (["photos/a", "photos/b"], "photos/c", "photos/b/5.jpeg", "photos/c/b/5.jpeg"),
        (["photos/*.jpg"], "photos/c", "photos/1.jpg", "photos/c/1.jpg"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_where_drawings_go(given: list[str], out: str, photo: str, expected: str) -> None:
    assert Photos(given, "mug").drawn_to(Path(out))(Path(photo)) == Path(expected)


def test_headers_and_the_address_of_the_environment(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLCLIP_ADDRESS", f"{triton.address} {triton.address}")
    assert cli.main(["embed-text", "1", "--header", "Authorization: Bearer a:b"]) == cli.OK
    assert triton.metadata[0]["authorization"] == "Bearer a:b"


def test_photos_are_read_while_they_are_sent(triton: FakeTriton, run: Run, tmp_path: Path) -> None:
    for i in range(400):
        (tmp_path / f"{i:03d}.jpg").write_text(str(i))

    def delete_later_photos(response: Any) -> None:
        for path in sorted(tmp_path.glob("*.jpg"))[200:]:
            path.unlink(missing_ok=True)

    triton.tamper = delete_later_photos
    _, out, _ = run("embed-image", tmp_path, "--whole", "--json")
    assert [row["status"] for row in objects(out)] == ["grounded"] * 200 + ["unreadable"] * 200


def test_ctrl_c(triton: FakeTriton, tmp_path: Path) -> None:
    triton.hold = {b"4": never}
    out = tmp_path / "out.npy"
    arguments = [*map(str, range(8)), "--json", "--timeout", "600", "--out", str(out), "--address", triton.address]
    with process("embed-text", *arguments, stdin=None, start_new_session=True) as vl:
        assert vl.stdout
        for _ in range(4):
            assert b"text" in vl.stdout.readline()
        triton.wait_for(lambda: triton.received == 2)
        vl.send_signal(signal.SIGINT)
        _, err = vl.communicate(timeout=60)
    assert vl.returncode == cli.INTERRUPTED
    assert err.decode().splitlines()[-1] == "vlclip: interrupted"
    assert b"Traceback" not in err
    assert f"{out}.partial has 4 rows. Run the same command again to continue" in err.decode()
    assert not out.exists()
    assert triton.cancelled.wait(60)


@pytest.mark.parametrize("form", ["--json", ""])
def test_a_reader_that_closes_the_pipe(triton: FakeTriton, form: str) -> None:
    lines = "".join(f"{i}\n" for i in range(4000)).encode()
    with process("embed-text", "-", *filter(None, [form]), "--address", triton.address) as vl:
        assert vl.stdin
        assert vl.stdout
        assert vl.stderr
        vl.stdin.write(lines)
        vl.stdin.close()
        vl.stdout.readline()
        vl.stdout.close()
        err = vl.stderr.read()
    assert (vl.returncode, err) == (cli.BROKEN_PIPE, b"")


def test_the_progress_bar_is_only_on_a_terminal(triton: FakeTriton) -> None:
    master, terminal = pty.openpty()
    with process("embed-text", *map(str, range(6)), "--address", triton.address, stderr=terminal) as vl:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(master, 65536):
                shown += piece
        except OSError:  # EIO: the other end was closed
            pass
        assert vl.stdout
        out = vl.stdout.read()
    os.close(master)
    assert vl.returncode == cli.OK
    assert b"6/6" in shown or b"6/?" in shown
    assert out.splitlines()[0].split() == [b"text", b"embedding"]
    assert b"\x1b" not in out


def test_without_a_command_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: vlclip COMMAND")
    assert "exit codes:" in err


def test_one_item_is_not_called_items(triton: FakeTriton, run: Run) -> None:
    assert run("embed-text", "7")[2] == "1 text\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert (done.value.code, capsys.readouterr().out) == (0, f"vlclip {vlclip.__version__}\n")


def test_the_examples_of_help_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    examples = re.findall(r"^  vlclip ([a-z].*)$", shown, re.M)
    assert {example.split()[0] for example in examples} == {
        "embed-image",
        "embed-text",
        "ground",
        "enrich",
        "health",
        "models",
    }
    for example in examples:
        cli.parser().parse_args(shlex.split(re.sub(r"[<>] .*", "", example)))
    codes = {cli.OK, cli.NOT_DECODED, cli.USAGE, cli.NO_SERVER, cli.REFUSED, cli.INTERRUPTED}
    assert {int(code) for code in re.findall(r"^  (\d+) ", shown, re.M)} == codes
