"""What a hostile or careless caller sends: every answer is a problem with a sentence, and the gateway goes on."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.photos import draw_scenes
from search.gateway.app import create_app
from search.gateway.guard import LOOPBACK, Guard, Settings
from search.gateway.remote import Remote, is_public
from search.photos import PhotoError
from search.records import product_of
from search.shop import Shop
from search.store import FolderStore
from serving.server.server import Server
from vlclip import Client

DEEP = "[" * 50_000 + "]" * 50_000
PHOTO = draw_scenes(1, seed=505)[0].jpeg
URI = "data:image/jpeg;base64," + base64.b64encode(PHOTO).decode()


@pytest.fixture(scope="module")
def http(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with Client(server.grpc_url, timeout=300) as client:
        folder = tmp_path_factory.mktemp("index")
        shop = Shop(FolderStore(folder), client)
        shop.upsert([product_of({"id": "p0", "photos": [PHOTO], "price": 5})])
        with TestClient(create_app(shop, client, Settings(seconds=300)), raise_server_exceptions=False) as http:
            yield http
        shop.close()
        Shop(FolderStore(folder), client).served().close()  # nothing that was sent keeps the index from opening


def guarded(answer: Callable[[Request], Any], settings: Settings) -> TestClient:
    """A gateway with one route."""
    app = Starlette(routes=[Route("/v1/versions", answer)], middleware=[Middleware(Guard, settings=settings)])
    return TestClient(app)


def bomb() -> str:
    file = io.BytesIO()
    Image.new("1", (30_000, 10_000)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


QUESTIONS: list[tuple[str, str, str, int]] = [
    ("not JSON", "/v1/search", "{", 422),
    ("deep JSON", "/v1/search", '{"text":' + DEEP + "}", 422),
    ("deep JSON elsewhere", "/v1/similar", '{"product":' + DEEP + "}", 400),
    ("half a surrogate", "/v1/search", '{"text":"\\ud800"}', 422),
    ("half a surrogate as a product", "/v1/similar", '{"product":"\\ud800"}', 422),
    ("half a surrogate as a field", "/v1/similar", '{"\\ud800":1}', 422),
    ("NUL", "/v1/similar", '{"product":"\\u0000"}', 404),
    ("blank text", "/v1/search", '{"text":"   "}', 422),
    ("NaN", "/v1/search", '{"text":"a","threshold":NaN}', 422),
    ("an infinite weight", "/v1/search", '{"text":"a","fuse":{"image":1e999}}', 422),
    ("an unknown attribute", "/v1/search", '{"text":"a","filters":{"none":"x"}}', 200),
    ("a condition of another kind", "/v1/search", '{"text":"a","filters":{"price":"cheap"}}', 200),
    ("a bound that is no number", "/v1/search", '{"text":"a","filters":{"price":{"gte":"x"}}}', 422),
    ("a name that is no path", "/v1/facets", '{"filters":{"\\"":"x"}}', 422),
    ("brackets in a name", "/v1/facets", '{"filters":{"a]..b[":"x"}}', 200),
    ("a file", "/v1/search", '{"photo":"file:///etc/passwd"}', 422),
    ("a decimal address", "/v1/search", '{"photo":"http://2130706433/"}', 422),
    ("a broken URL", "/v1/search", '{"photo":"http://["}', 422),
    ("a port that is none", "/v1/search", '{"photo":"http://a:99999/"}', 422),
    ("a photo that unpacks to 300 million pixels", "/v1/search", json.dumps({"photo": bomb()}), 422),
    ("no product type", "/v1/search", json.dumps({"photo": URI, "product_type": "\0"}), 200),
    ("no inputs", "/v1/embeddings", '{"input":[]}', 400),
    ("tokens", "/v1/embeddings", '{"input":[1,2]}', 400),
    ("too many inputs", "/v1/embeddings", json.dumps({"input": ["a"] * 257}), 400),
    ("not JSON for OpenAI's path", "/v1/embeddings", "{", 400),
    ("half a surrogate to embed", "/v1/embeddings", '{"input":"\\udfff"}', 400),
    ("a photo that is not base64", "/v1/embeddings", '{"input":"data:image/png;base64,A"}', 400),
]


@pytest.mark.parametrize(("path", "body", "status"), [row[1:] for row in QUESTIONS], ids=[row[0] for row in QUESTIONS])
def test_a_question_is_answered_or_refused_with_a_sentence(http: TestClient, path: str, body: str, status: int) -> None:
    answer = http.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    if status >= 400 and path == "/v1/embeddings":
        assert answer.json()["error"]["message"]
    elif status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


PRODUCTS: list[tuple[str, str, int]] = [
    ("NaN", '"price": NaN', 200),  # kept as a word
    ("an infinite number", '"price": 1e999', 200),
    ("a nested attribute", '"a": {"b": 1}', 422),
    ("half a surrogate", '"title": "\\ud800"', 422),
    ("half a surrogate in an attribute", '"colour": "\\ud800"', 422),
    ("half a surrogate as a name", '"\\ud800": "x"', 422),
    ("a quotation mark in a name", '"we\\"ird": "x"', 422),
    ("brackets and dots in a name", '"na[me].x": "y"', 200),
    ("a blank name", '" ": "x"', 422),
    ("another kind than before", '"price": "cheap"', 200),
    ("a number of 5,000 digits", '"n": ' + "9" * 5000, 400),
    ("a number of 400 digits", '"n": ' + "9" * 400, 200),
    ("too many attributes", ", ".join(f'"a{n}": "x"' for n in range(501)), 422),
]


@pytest.mark.parametrize(("fields", "status"), [row[1:] for row in PRODUCTS], ids=[row[0] for row in PRODUCTS])
def test_a_product_is_written_whole_or_refused(http: TestClient, fields: str, status: int) -> None:
    body = f'{{"photo": "{URI}", {fields}}}'
    answer = http.put("/v1/products/new", content=body.encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert http.get("/v1/products/new").status_code == (200 if status == 200 else 404)
    assert http.post("/v1/facets", json={}).status_code == 200
    assert http.delete("/v1/products/new").status_code == (200 if status == 200 else 404)


def test_lines_are_written_while_they_come_and_bad_ones_cost_only_themselves(http: TestClient) -> None:
    rows = [json.dumps({"id": "new", "photo": URI, "title": title}) for title in ("first", "last")]
    lines = ["\udcff", "[]", "null", DEEP, rows[0], "{}", rows[1], ""]
    body = "\n".join(lines).encode(errors="surrogateescape")
    answer = http.post("/v1/products", content=iter([body[:50], body[50:-9], body[-9:]])).json()
    assert (answer["products"], answer["bad_count"]) == (2, 5)
    assert [bad.partition(":")[0] for bad in answer["bad"]] == ["line 1", "line 2", "line 3", "line 4", "line 6"]
    assert http.get("/v1/products/new").json()["title"] == "last"
    assert http.delete("/v1/products/new").status_code == 200


def test_pages_of_others_and_other_names_are_refused(http: TestClient) -> None:
    evil = {"Origin": "http://evil.example"}
    assert http.post("/v1/products", content=b"", headers=evil).status_code == 403
    assert http.get("/v1/versions", headers=evil).status_code == 200  # a browser keeps the answer from the page
    assert http.post("/v1/products", content=b"", headers={"Origin": "http://testserver"}).status_code == 200

    with guarded(lambda request: Response(), Settings(hosts=LOOPBACK)) as named:
        assert named.get("/v1/versions", headers={"Host": "evil.example:8080"}).status_code == 421


def test_a_request_is_answered_in_time_and_holds_its_place_until_its_thread_ends() -> None:
    end, answered = threading.Event(), threading.Event()

    async def slow(request: Request) -> Response:
        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, end.wait))
        except asyncio.CancelledError:  # as a request whose thread cannot be stopped
            while not end.is_set():
                await asyncio.sleep(0.01)
        answered.set()
        return Response()

    with guarded(slow, Settings(seconds=0.05, max_requests=1)) as http:
        late = http.get("/v1/versions")
        assert (late.status_code, late.headers["retry-after"]) == (504, "1")
        assert "0.05 s" in late.json()["detail"]
        busy = http.get("/v1/versions")
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        end.set()
        assert answered.wait(30)


def test_an_error_of_the_gateway_is_a_problem_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: Request) -> Response:
        raise KeyError("secret")

    with guarded(broken, Settings()) as http:
        answer = http.get("/v1/versions")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("0.0.0.0", False),
        ("10.0.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.0.1", False), ("::", False),
        ("::1", False), ("fe80::1%eth0", False), ("fec0::1", False), ("fc00::1", False), ("ff02::1", False),
        ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_only_addresses_of_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_a_host_cannot_redirect_or_send_without_end() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            redirects = self.path == "/redirect"
            self.send_response(302 if redirects else 200)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            try:
                while not redirects and self.path == "/endless":
                    self.wfile.write(b"x" * (1 << 20))
            except OSError:
                pass
            self.wfile.write(self.headers["Host"].encode())

        def log_message(self, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host = f"localhost:{server.server_port}"
    remote = Remote([host], private=True)
    try:
        assert remote.fetch(f"http://{host}/photo") == host.encode()
        with pytest.raises(PhotoError, match="answered 302"):
            remote.fetch(f"http://{host}/redirect")
        with pytest.raises(PhotoError, match="more than 32 MiB"):
            remote.fetch(f"http://{host}/endless")
    finally:
        remote.close()
        server.shutdown()
        thread.join()
        server.server_close()
