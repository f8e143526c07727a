"""Judgements are read row by row, and the command measures the answers of an index and chooses the shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.shop import draw
from search import __main__ as search
from search.evaluate import Query, grid, read_judgements
from search.questions import Options, by_text
from search.records import CatalogueError
from search.shop import Shop
from search.store import FolderStore
from serving.server.server import Server
from vlclip import Client


def test_a_query_is_a_text_a_product_or_a_photo(tmp_path: Path) -> None:
    file = tmp_path / "judged.csv"
    file.write_text(
        "query,product,grade,product_type\n"
        "a red mug,p1,2,\na red mug,p2,,\nproduct:p1,p2,1,\nphoto:photos/1.jpg,p1,1,mug\ntext:photo: a mug,p3,0.5,\n"
        "only wrong ones,p1,0,\n"
    )
    expected = [
        Query("text", "a red mug", None, {"p1": 2, "p2": 1}),
        Query("product", "p1", None, {"p2": 1}),
        Query("photo", str(tmp_path / "photos/1.jpg"), "mug", {"p1": 1}),
        Query("text", "photo: a mug", None, {"p3": 0.5}),
    ]
    assert read_judgements(file) == (expected, [])
    lines = tmp_path / "judged.jsonl"
    lines.write_text('{"query": "a red mug", "product": 17, "grade": 2}\n\n{"query": "a red mug", "product": "p2"}\n')
    assert read_judgements(lines) == ([Query("text", "a red mug", None, {"17": 2, "p2": 1})], [])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("judged.csv", "query,item\nmug,p1\n", "no column named product"),
        ("judged.csv", "query,product,grade\nmug,p1,0\n", "no query with a product of a grade above 0"),
        ("judged.txt", "", r"expected a file in \.csv or \.jsonl"),
        ("judged.jsonl", "nonsense\n", r"judged\.jsonl:1: this line is not JSON"),
    ],
)
def test_a_file_without_judgements_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CatalogueError, match=message):
        read_judgements(tmp_path / name)


def test_a_bad_row_costs_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "judged.csv"
    file.write_text("query,product,grade\nmug,p1,1\nmug,p1,2\nmug,p2,-1\nmug,p3,nan\n,p4,1\n")
    queries, bad = read_judgements(file)
    assert queries == [Query("text", "mug", None, {"p1": 1})]
    assert [str(row).partition("judged.csv:")[2].partition(":")[0] for row in bad] == ["3", "4", "5", "6"]
    assert "was judged before" in bad[0].reason


def test_the_photos_alone_are_the_first_combination_and_all_shares_sum_to_one() -> None:
    found = grid()
    assert found[0] == {"image": 1}
    assert len(found) == 21
    assert all(sum(shares.values()) == pytest.approx(1) for shares in found)


def test_the_command_measures_an_index_and_keeps_better_shares(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = draw(tmp_path / "shop", 40, 40)
    # A query that only the words know, so that the best shares are known too.
    rows = [json.loads(line) | {"article": f"zx{n}q"} for n, line in enumerate(catalogue.read_text().splitlines())]
    catalogue.write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = ["--index", str(tmp_path / "index"), "--url", server.grpc_url]
    assert search.main(["index", str(catalogue), *places]) == 0
    file = tmp_path / "judged.jsonl"
    judged = [{"query": row["article"], "product": row["id"]} for row in rows]
    judged += [{"query": "product:p00000", "product": row["id"]} for row in rows[1:]]
    judged += [
        {
            "query": f"photo:shop/{rows[1]['photos'][0]}",
            "product": rows[1]["id"],
            "product_type": rows[1]["product_type"],
        }
    ]
    file.write_text(
        "".join(json.dumps(row) + "\n" for row in judged) + '{"query": "product:unknown", "product": "gone"}\n'
    )
    capsys.readouterr()
    out = tmp_path / "out"
    assert search.main(["evaluate", str(file), *places, "--choose-shares", "--json", "--out", str(out)]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "evaluation.json").read_text())
    assert (out / "evaluation.png").stat().st_size > 10_000
    assert report["queries"] == {"text": 40, "product": 1, "photo": 1}
    lacking, unknown = report["failed"]
    assert "the index lacks 1 judged products (gone …)" in lacking
    assert "unknown" in unknown
    assert report["measures"]["photo"]["HITS@1"]["value"] == 1
    for measures in report["measures"].values():
        assert measures["recall of the index"]["value"] >= 0.9
        assert all(one["low"] <= one["value"] <= one["high"] for one in measures.values())
    served = FolderStore(tmp_path / "index").served()
    assert served is not None
    assert report["shares"]["kept"]
    assert served.shares == report["shares"]["shares"]
    assert served.shares.get("words", 0) > 0
    assert report["measures"]["text"]["HITS@5"]["value"] == 1
    # A question uses the shares, unless it needs the cosines of one ranking.
    with Client(server.grpc_url) as client:
        shop = Shop(FolderStore(tmp_path / "index"), client)
        [fused] = shop.by_text(rows[0]["article"], Options(limit=1))
        index, [vector] = shop.encode([rows[0]["article"]])
        assert [fused] == by_text(index, rows[0]["article"], vector, Options(limit=1), served.shares)
        alone = Options(limit=1, threshold=-1.0)
        assert shop.by_text(rows[0]["article"], alone) == by_text(index, rows[0]["article"], vector, alone)
        shop.close()
    capsys.readouterr()
    assert search.main(["query", rows[0]["article"], *places, "--diversity", "0.3"]) == 0
