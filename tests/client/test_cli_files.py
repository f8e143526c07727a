"""The command line's tables, its files, and how a run that was interrupted continues, against a server over gRPC."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from pyarrow import parquet

from serving.enrich.product import Outcome
from tests.client.command import ENVIRONMENT, Run, objects
from tests.client.conftest import FakeTriton, never
from vlclip import cli
from vlclip._wire import PIPELINES
from vlclip.cli.arguments import FILES
from vlclip.cli.rows import ENRICHED_STATUSES, columns_of

pytestmark = pytest.mark.usefixtures("shop")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder, with photos in ``shop``."""
    monkeypatch.chdir(tmp_path)
    Path("shop").mkdir()
    for number in range(1, 8):
        Path(f"shop/{number}.jpg").write_text(str(number))


TABLES = {
    "csv": ("products.csv", b"id,type,path\na,mug,1.jpg\nb,desk lamp,2.jpg\n"),
    "csv of a spreadsheet": ("products.csv", b'\xef\xbb\xbf"path";"id";"type"\r\n1.jpg;a;mug\r\n2.jpg;b;desk lamp\r\n'),
    "tsv": ("products.tsv", b"type\tpath\tid\nmug\t1.jpg\ta\ndesk lamp\t2.jpg\tb"),
    "jsonl": (
        "products.jsonl",
        b'{"id": "a", "type": "mug", "path": "1.jpg"}\n\n{"id": "b", "type": "desk lamp", "path": "2.jpg", "x": [1]}\n',
    ),
    "other columns, blank rows": (
        "products.csv",
        b'title,id,type,path\n"two\nlines",a,mug,1.jpg\n,,,\n\n"a ""b"", c",b,desk lamp,2.jpg\n',
    ),
}


@pytest.mark.parametrize(("name", "content"), TABLES.values(), ids=list(TABLES))
def test_each_photo_of_a_table_has_its_type(run: Run, name: str, content: bytes) -> None:
    Path("shop", name).write_bytes(content)
    code, out, err = run("embed-image", "--table", f"shop/{name}", "--json")
    assert (code, err) == (cli.OK, "")
    assert [(row["id"], row["path"], row["type"], row["embedding"]) for row in objects(out)] == [
        ("a", "1.jpg", "mug", [1, 3, 0]),
        ("b", "2.jpg", "desk lamp", [2, 9, 0]),
    ]


BAD_ROWS = {
    "no photo": ("products.csv", "b,mug,9.jpg", "9.jpg: No such file or directory"),
    "a folder": ("products.csv", "b,mug,.", ".: Is a directory"),
    "no path": ("products.csv", "b,mug,", "path: expected a value, got none"),
    "no type": ("products.csv", "b,,2.jpg", "2.jpg: type: expected a value, got none"),
    "too few columns": ("products.csv", "b,2.jpg", "expected 3 columns, got 2"),
    "too many columns": ("products.csv", "b,mug,2.jpg,x", "2.jpg: expected 3 columns, got 4"),
    "an open quote": ("products.csv", 'b,"mug,2.jpg', "a quote is not closed"),
    "an open quote before another": ("products.csv", 'b,"mug,2.jpg\n"c","mug",4.jpg', "',' expected after"),
    "not UTF-8": ("products.csv", "b,m\udcfcg,2.jpg", "2.jpg: expected text in UTF-8"),
    "not an image": ("products.csv", "b,mug,products.csv", "products.csv: not an image"),
    "not JSON": ("products.jsonl", '{"id": "b"', "expected a JSON object (Expecting"),
    "not an object": ("products.jsonl", "[1]", "expected a JSON object, got [1]"),
    "deep": ("products.jsonl", "[" * 200_000, "expected a JSON object ("),
    "a path of another kind": ("products.jsonl", '{"path": ["2.jpg"], "type": "mug"}', "path: expected a text, got"),
    "a surrogate": ("products.jsonl", '{"path": "2.jpg", "type": "\\ud800"}', "2.jpg: expected text in UTF-8"),
    "NUL": ("products.jsonl", '{"path": "\\u0000", "type": "mug"}', "embedded null byte"),
}


@pytest.mark.parametrize(("name", "line", "reason"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_a_bad_row_costs_only_itself(run: Run, name: str, line: str, reason: str) -> None:
    good = {"1.jpg": "a,mug,1.jpg", "3.jpg": "d,mug,3.jpg"}
    if name.endswith("jsonl"):
        good = {path: json.dumps({"path": path, "type": "mug"}) for path in good}
    lines = [*([] if name.endswith("jsonl") else ["id,type,path"]), good["1.jpg"], line, good["3.jpg"]]
    Path("shop", name).write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    code, out, err = run("embed-image", "--table", f"shop/{name}", "--out", "out.jsonl")
    assert (code, out) == (cli.NOT_DECODED, "")
    problem, summary = err.splitlines()
    assert problem.startswith(f"vlclip: shop/{name}:{lines.index(line) + 1}: ")
    assert reason in problem
    assert "1 unreadable" in summary or "1 not an image" in summary
    rows = {row.get("path"): row for row in objects(Path("out.jsonl").read_text())}
    assert [rows[path]["embedding"][0] for path in good] == [1, 3]
    assert sum("embedding" not in row for row in rows.values()) == 1


def test_texts_of_a_table(run: Run) -> None:
    Path("titles.csv").write_text("id,title,description\na,1,x\nb,2,\n")
    assert [row["text"] for row in objects(run("embed-text", "--table", "titles.csv", "--json")[1])] == ["1", "2"]
    Path("texts.jsonl").write_text('{"text": "1", "title": "x"}\n{"title": "2"}\n{"id": 7}\n')
    code, out, _ = run("embed-text", "--table", "texts.jsonl", "--json")
    assert code == cli.NOT_DECODED
    assert [row.get("text") for row in objects(out)] == ["1", "2", None]
    assert objects(out)[2] == {
        "id": "7",
        "status": "unreadable",
        "reason": "texts.jsonl:3: text or title: expected a value, got none",
    }


def test_lines_that_are_not_utf8_cost_only_themselves(run: Run, triton: FakeTriton) -> None:
    command = [sys.executable, "-m", "vlclip", "embed-text", "-", "--json", "--address", triton.address]
    done = subprocess.run(command, input=b"1\ngr\xfcn\n2", capture_output=True, env=ENVIRONMENT)
    assert done.returncode == cli.NOT_DECODED
    assert [row.get("reason") for row in objects(done.stdout.decode())] == [
        None,
        "stdin:2: expected text in UTF-8",
        None,
    ]


def test_enriching_one_product(run: Run) -> None:
    arguments = ("--type", "mug", "--title", "NEW! Mug", "--description", "red", "--photo", "shop/1.jpg")
    code, out, _ = run("enrich", *arguments, "--json")
    assert code == cli.OK
    (row,) = objects(out)
    product = {"product_type": "mug", "title": "NEW! Mug", "description": "red"}
    assert (json.loads(row["text"]), row["status"], row["prompts"], row["rounds"]) == (product, "unanswered", "v1", 1)
    _, out, _ = run("enrich", *arguments)
    assert out.split()[:8] == ["product", "status", "rounds", "prompts", "truncated", "text", "NEW!", "Mug"]


def test_enriching_a_table(run: Run) -> None:
    Path("shop/products.jsonl").write_text(
        '{"id": 1, "type": "mug", "title": "Mug", "details": {"colour": "red"}, "path": "1.jpg"}\n{"id": 2}\n'
        '{"id": 3, "description": "blue"}\n'
    )
    code, _, err = run("enrich", "--table", "shop/products.jsonl", "--out", "texts.parquet")
    assert code == cli.NOT_DECODED
    assert "shop/products.jsonl:2: 2: expected a title, a description or another attribute, got none" in err
    rows = parquet.read_table("texts.parquet").to_pylist()
    assert json.loads(rows[0]["text"]) == {"product_type": "mug", "title": "Mug", "details": {"colour": "red"}}
    assert [(row["id"], row["type"], row["status"]) for row in rows] == [
        ("1", "mug", "unanswered"),
        ("2", None, "unreadable"),
        ("3", None, "unanswered"),
    ]


def test_the_statuses_of_enriched_texts_have_the_names_of_the_server() -> None:
    assert [outcome.name.lower() for outcome in Outcome] == list(ENRICHED_STATUSES)


def write_table(rows: int) -> None:
    """A table with ``rows`` photos, of which the second does not exist and the third is not an image."""
    paths = ["1.jpg", "9.jpg", "products.csv", *(f"{4 + i % 4}.jpg" for i in range(rows - 3))]
    Path("shop/products.csv").write_text(
        "id,type,path\n" + "".join(f"{i},mug,{path}\n" for i, path in enumerate(paths))
    )


def test_parquet(run: Run) -> None:
    write_table(7)
    code, _, err = run("embed-image", "--table", "shop/products.csv", "--query", "2", "--out", "out.parquet")
    assert code == cli.NOT_DECODED
    assert err.endswith("out.parquet: embeddings [7, 3]\n")
    table = parquet.read_table("out.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    expected = {
        **dict.fromkeys(("id", "path", "type", "status", "reason"), "string"),
        **dict.fromkeys(("score", "similarity"), "float"),
        "box_xyxy": "fixed_size_list<element: float>[4]",
        "embedding": "fixed_size_list<element: float>[3]",
    }
    assert {name: types[name].replace("item:", "element:") for name in expected} == expected
    assert json.loads(table.schema.metadata[b"vlclip"])["command"] == "embed-image"
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [str(i) for i in range(7)]
    assert [row["status"] for row in rows] == ["grounded", "unreadable", "not_an_image", *["grounded"] * 4]
    assert [row["embedding"] for row in rows[:4]] == [[1, 3, 0], None, None, [4, 3, 0]]
    assert rows[1]["reason"] == "shop/products.csv:3: No such file or directory"
    assert rows[3]["box_xyxy"] == [4, 5, 6, 7]
    assert rows[3]["similarity"] == 8


def test_a_run_without_any_embedding_has_the_size_of_embeddings(run: Run) -> None:
    Path("shop/products.csv").write_text("type,path\nmug,nowhere.jpg\n")
    assert run("embed-image", "--table", "shop/products.csv", "--out", "out.npy")[0] == cli.NOT_DECODED
    assert np.load("out.npy").tolist() == [[0, 0, 0]]
    Path("shop/products.csv").write_text("type,path\n")
    assert run("embed-image", "--table", "shop/products.csv", "--out", "out.parquet")[0] == cli.OK
    assert str(parquet.read_schema("out.parquet").field("embedding").type).endswith("[3]")


def test_boxes_are_saved(run: Run) -> None:
    assert run("ground", "shop", "--type", "mug", "--out", "out.npz")[0] == cli.OK
    with np.load("out.npz") as saved:
        assert "embedding" not in saved
        assert saved["box_xyxy"][:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_texts_are_saved_with_their_embeddings(run: Run, tmp_path: Path) -> None:
    """More than a batch of them."""
    out = tmp_path / "out.npz"
    texts = ["[bold]", "", *map(str, range(1234))]
    assert run("embed-text", *texts, "--out", out) == (cli.OK, "", f"1236 texts; {out}: embeddings [1236, 3]\n")
    with np.load(out) as saved:
        assert saved["text"].tolist() == texts
        assert saved["embedding"][:, 0].tolist() == [0, 0, *range(1234)]


def test_a_failure_without_results_does_not_change_the_file(triton: FakeTriton, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    np.save(out, np.ones(2))
    triton.fail = grpc.StatusCode.INTERNAL
    assert run("embed-text", "1", "--out", out)[0] == cli.REFUSED
    assert np.load(out).tolist() == [1, 1]
    assert sorted(tmp_path.iterdir()) == [out, tmp_path / "shop"]


def test_names_that_are_not_utf8(run: Run, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.jpg"
    Path(os.fsdecode(path)).write_bytes(b"1")
    code, out, _ = run("ground", os.fsdecode(path), "--type", "mug")
    assert code == cli.OK
    assert "?.jpg" in out
    _, out, _ = run("ground", os.fsdecode(path), "--type", "mug", "--json")
    assert os.fsencode(objects(out)[0]["path"]) == path
    assert run("ground", os.fsdecode(path), "--type", "mug", "--out", "out.parquet")[0] == cli.OK
    assert parquet.read_table("out.parquet")["path"][0].as_py().endswith("\\udcff.jpg")


def test_the_help_names_every_column() -> None:
    columns = {name for pipeline in PIPELINES for name in columns_of(pipeline, similarity=True)}
    assert columns <= {*re.findall(r"\w+", FILES.partition("The columns are")[2])}


ARGUMENTS = ("embed-image", "--table", "shop/products.csv", "--out")


def fail_at(triton: FakeTriton, item: bytes) -> None:
    triton.fail, triton.fail_on = grpc.StatusCode.INTERNAL, item


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".jsonl", ".parquet"])
def test_a_run_continues_after_a_failure(run: Run, triton: FakeTriton, suffix: str) -> None:
    write_table(14)
    out, expected = Path(f"out{suffix}"), Path(f"expected{suffix}")
    code, _, problems = run(*ARGUMENTS, expected)
    assert code == cli.NOT_DECODED
    before = len(triton.infer_requests)
    Path("shop/7.jpg").write_text("777")  # the photo of the seventh row, in the second batch
    fail_at(triton, b"777")
    code, _, err = run(*ARGUMENTS, out)
    assert code == cli.REFUSED
    assert f"{out}.partial has 5 rows. Run the same command again to continue\n" in err
    assert not out.exists()
    Path("shop/7.jpg").write_text("7")
    triton.fail = None
    triton.infer_requests.clear()
    code, _, err = run(*ARGUMENTS, out)
    assert code == cli.NOT_DECODED
    assert err.startswith(
        "vlclip: continues after the first 5 rows\n14 photos: 12 grounded, 1 unreadable, 1 not an image"
    )
    assert sum(map(len, triton.batches)) == 9
    assert before == 4
    assert out.read_bytes() == expected.read_bytes()
    assert problems.count("vlclip: ") == 2
    assert not [path for path in Path().iterdir() if "partial" in path.name]


def test_a_run_that_was_cut_off_anywhere_continues(run: Run, triton: FakeTriton) -> None:
    """A kill can leave any beginning of the file of unfinished rows. No row is then lost, doubled or asked again."""
    write_table(6)
    one = ("--max-in-flight", "1")
    assert run(*ARGUMENTS, "expected.jsonl")[0] == cli.NOT_DECODED
    fail_at(triton, b"6")
    triton.max_batch_size = 1
    assert run(*ARGUMENTS, "out.jsonl", *one)[0] == cli.REFUSED
    triton.fail = None
    whole = Path("out.jsonl.partial").read_bytes()
    assert whole.count(b"\n") == 6  # a line about the run, and five rows
    for size in [*range(0, len(whole), 29), len(whole) - 1, len(whole)]:
        Path("out.jsonl.partial").write_bytes(whole[:size])
        triton.infer_requests.clear()
        assert run(*ARGUMENTS, "out.jsonl", *one)[0] == cli.NOT_DECODED
        assert Path("out.jsonl").read_bytes() == Path("expected.jsonl").read_bytes()
        complete = max(0, whole[:size].count(b"\n") - 1)
        sent = [b"1", None, b"id", b"4", b"5", b"6"][complete:]
        assert [items[0].split(b",")[0] for items in triton.batches] == [item for item in sent if item]


def test_a_run_whose_file_could_not_be_written_asks_nothing_again(run: Run, triton: FakeTriton) -> None:
    write_table(6)
    assert run(*ARGUMENTS, "expected.npz")[0] == cli.NOT_DECODED
    blocked = Path("out.npz.partial.tmp")
    blocked.mkdir()
    code, _, err = run(*ARGUMENTS, "out.npz")
    assert code == cli.USAGE
    assert "out.npz.partial has 6 rows" in err
    assert "out.npz.partial.tmp: Is a directory" in err
    blocked.rmdir()
    triton.infer_requests.clear()
    assert run(*ARGUMENTS, "out.npz")[0] == cli.NOT_DECODED
    assert triton.infer_requests == []
    assert Path("out.npz").read_bytes() == Path("expected.npz").read_bytes()


def test_a_killed_run_continues(run: Run, triton: FakeTriton) -> None:
    write_table(14)
    assert run(*ARGUMENTS, "expected.parquet")[0] == cli.NOT_DECODED
    Path("shop/7.jpg").write_text("777")
    triton.hold = {b"777": never}
    triton.max_batch_size = 1
    command = [sys.executable, "-m", "vlclip", *ARGUMENTS, "out.parquet", "--address", triton.address]
    with subprocess.Popen([*command, "--max-in-flight", "1", "--json"], env=ENVIRONMENT, stdout=subprocess.PIPE) as vl:
        assert vl.stdout
        printed = [json.loads(vl.stdout.readline()) for _ in range(6)]
        busy = run(*ARGUMENTS, "out.parquet")
        vl.kill()
    assert busy[0] == cli.USAGE
    assert "out.parquet.partial is in use: another vlclip writes it" in busy[2]
    assert [row["id"] for row in printed] == ["0", "1", "2", "3", "4", "5"]
    Path("shop/7.jpg").write_text("7")
    triton.infer_requests.clear()
    assert run(*ARGUMENTS, "out.parquet")[0] == cli.NOT_DECODED
    assert sum(map(len, triton.batches)) == 8
    assert Path("out.parquet").read_bytes() == Path("expected.parquet").read_bytes()


def test_unfinished_rows_of_another_run_are_not_mixed_with_new_ones(run: Run, triton: FakeTriton) -> None:
    write_table(6)
    fail_at(triton, b"6")
    triton.max_batch_size = 1
    assert run(*ARGUMENTS, "out.jsonl")[0] == cli.REFUSED
    partial = Path("out.jsonl.partial").read_bytes()
    Path("notes.jsonl.partial").write_text("mine\n")
    triton.fail = None
    table = Path("shop/products.csv")
    other = Path("shop/other.csv")
    other.write_text(table.read_text().replace("3,mug", "3,cup"))
    short = Path("shop/short.csv")
    short.write_text("".join(table.read_text().splitlines(keepends=True)[:3]))
    command, option, _, _ = ARGUMENTS
    for arguments, message in {
        (*ARGUMENTS, "out.jsonl", "--query", "1"): "out.jsonl.partial is of a run with other options",
        (command, option, other, "--out", "out.jsonl"): 'of other input: its row 4 is not "4.jpg". Delete it',
        (command, option, short, "--out", "out.jsonl"): "of other input: its row 3 is not nothing. Delete it",
        (*ARGUMENTS, "notes.jsonl"): "notes.jsonl.partial is of a run with other options",
    }.items():
        code, _, err = run(*arguments)
        assert code == cli.USAGE
        assert message in err
    assert Path("out.jsonl.partial").read_bytes() == partial
    assert Path("notes.jsonl.partial").read_text() == "mine\n"
