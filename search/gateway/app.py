"""The gateway's routes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from PIL import Image, ImageOps
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

from search.attributes import LEAST, Attribute, Outcome, vocabulary_of
from search.gateway import bulk, embeddings, facets, problems, versions
from search.gateway.guard import Guard, Settings
from search.gateway.problems import Problem
from search.gateway.remote import Remote
from search.gateway.schemas import (
    DEEPEST,
    MOST,
    Answer,
    Deleted,
    Facets,
    FacetsRequest,
    Photo,
    ProductAnswer,
    RecommendRequest,
    SearchRequest,
    SimilarRequest,
    Written,
    found,
    written,
)
from search.index import Hit, Index, Point, one_a_product
from search.photos import PhotoError, load
from search.questions import Duplicates, points_of, recent
from search.records import product_of
from search.shop import Shop
from vlclip import Client

PAGE = Path(__file__).with_name("page")


def create_app(
    shop: Shop, client: Client, settings: Settings, following: Callable[[], Client] | None = None
) -> FastAPI:
    """The gateway of a shop. ``client`` is that of the shop. ``following`` gives that of the next models."""
    app = FastAPI(title="VL-CLIP", description="Search, similar items and recommendations that see the product.")
    problems.install(app)
    remote = Remote(settings.photo_hosts)

    def load_photo(photo: str | bytes) -> bytes:
        """A caller's photo: bytes, a data URI or an allowed URL, but never a file of this machine."""
        if isinstance(photo, bytes) or photo.startswith("data:"):
            return load(photo)
        if photo.startswith(("http://", "https://")):
            return remote.fetch(photo)
        raise PhotoError("a photo must be a data URI such as data:image/jpeg;base64,… or a URL of an allowed host")

    def load_stored(photo: str | bytes) -> bytes:
        """A photo that the index names: a file that the shop stored or indexed, or a URL of an allowed host."""
        is_remote = isinstance(photo, str) and photo.startswith(("http://", "https://"))
        return remote.fetch(str(photo)) if is_remote else load(photo)

    app.include_router(embeddings.router(client, load_photo))
    app.include_router(versions.router(shop, following or (lambda: client), load_stored))

    @app.post("/v1/search", tags=["Questions"], openapi_extra=_SEARCH_BODY)
    async def search(request: Request) -> Answer:
        """Search by a text or a photo. Send JSON, or a form with the file `photo` and the fields of the JSON."""
        from starlette.concurrency import run_in_threadpool

        question, photo = await _read_search(request)
        return await run_in_threadpool(answer_search, question, photo)

    def answer_search(question: SearchRequest, photo: bytes | None) -> Answer:
        if question.text is not None:
            fuse: Any = question.fuse.model_dump() if question.fuse else None
            return Answer(products=_found(shop.by_text(question.text, question.options(), fuse)))
        data = photo if photo is not None else load_photo(question.photo or "")
        answer = shop.by_photo(data, question.product_type, question.options())
        shown = Photo(
            product_type=answer.product_type, box=list(answer.box_xyxy), score=answer.score, grounded=answer.grounded
        )
        return Answer(products=_found(answer.hits), photo=shown)

    @app.post("/v1/similar", tags=["Questions"])
    def similar(request: SimilarRequest) -> Answer:
        """Products that look like a product."""
        hits = shop.similar(request.product, request.options(), widen=request.widen, duplicates=request.duplicates)
        return Answer(products=_found(hits))

    @app.post("/v1/recommend", tags=["Questions"])
    def recommend(request: RecommendRequest) -> Answer:
        """Products for a person, from what they liked, disliked and looked at."""
        liked = recent(request.recent) | dict.fromkeys(request.liked, 1.0)
        if not liked:
            raise Problem(422, "expected at least one product in liked or recent")
        options, also = request.options(), request.duplicates
        hits = shop.recommend(liked, options, disliked=request.disliked, duplicates=also)
        return Answer(products=_found(hits))

    @app.get("/v1/duplicates", tags=["Products"])
    def duplicates(
        limit: Annotated[int, Query(ge=1, le=MOST)] = 10, offset: Annotated[int, Query(ge=0, le=DEEPEST)] = 0
    ) -> list[Duplicates]:
        """Groups of photos that are copies of one, of several products or of one, largest first."""
        return shop.duplicates(limit, offset)

    @app.post("/v1/facets", tags=["Questions"])
    def count_facets(request: FacetsRequest) -> Facets:
        """What to filter by, with counts that obey the other filters."""
        return facets.count(shop.served(), request)

    @app.post("/v1/attributes", tags=["Questions"])
    def guess(
        values: Annotated[dict[str, Any], Body(examples=[{"mug": {"handle": ["round", "square"]}}])],
        confidence: Annotated[float, Query(ge=0, le=1)] = LEAST,
    ) -> list[Outcome]:
        """Guess attributes of products from the embeddings of their photos. An empty list forgets an attribute.

        Afterwards `guessed.NAME` can be used in filters. A guess with less `confidence` is not stored. The values are
        a list, or an object with a phrase for each value. The type `*` stands for every type.
        """
        return shop.guess(vocabulary_of(values, confidence))

    @app.get("/v1/attributes", tags=["Questions"])
    def guessed() -> list[Attribute]:
        """What is guessed of the products."""
        return list(shop.attributes())

    @app.put("/v1/products/{product:path}", tags=["Products"])
    def put(product: str, row: dict[str, Any]) -> Written:
        """Insert a product, or replace it whole."""
        try:
            checked = product_of({**row, "id": product})
        except ValueError as error:
            raise Problem(422, str(error)) from None
        report = shop.upsert([checked], load_photo=load_photo)
        if report.bad and not report.unchanged and not report.photos["embedded"] + report.photos["shared"]:
            raise Problem(422, "; ".join(row.reason for row in report.bad))
        return written(report)

    @app.post("/v1/products", tags=["Products"], openapi_extra=_BULK_BODY)
    async def write_lines(request: Request) -> Written:
        """Insert or replace products, one JSON object a line (NDJSON). A bad line costs only itself.

        Lines are written while they arrive, so a body can be long.
        """
        return await bulk.write(
            request.stream(), shop, load_photo, max_bytes=settings.max_bytes, seconds=settings.seconds
        )

    @app.get("/v1/products/{product:path}", tags=["Products"])
    def get(product: str) -> ProductAnswer:
        """A product and its photos."""
        index = shop.served()
        points = points_of(index, product)
        payload = points[0].payload
        names = ("product", "product_type", "title", "description", "text", "attributes", "version")
        return ProductAnswer(
            **{name: payload[name] for name in names},
            photos=[
                found(Hit(point.id, 1.0, point.payload)) for point in sorted(points, key=lambda p: p.payload["number"])
            ],
            duplicates=_found(_same_photo(index, product, points)),
        )

    @app.delete("/v1/products/{product:path}", tags=["Products"])
    def delete(product: str) -> Deleted:
        """Delete a product."""
        deleted = shop.delete([product])
        if not deleted:
            raise Problem(404, f"the index has no product {product!r}")
        return Deleted(products=deleted)

    @app.get("/v1/photos/{point}", tags=["Products"], response_class=Response)
    def photo(point: str, crop: bool = False, width: Annotated[int, Query(ge=16, le=2048)] = 640) -> Response:
        """A product's photo, or what was cropped from it, as JPEG, at most ``width`` pixels wide."""
        payload = shop.payload(point)
        data = shop.photo(payload, load_stored)
        box = payload["box"] if crop else None
        return Response(_jpeg(data, box, width), media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    @app.get("/healthz", tags=["Operation"], response_class=PlainTextResponse)
    def live() -> str:
        """The gateway answers."""
        return "ok\n"

    @app.get("/readyz", tags=["Operation"])
    def ready() -> Response:
        """Whether products can be searched: the index has products, and the server of the models is ready."""
        indexed, encodes = shop.ready()
        state = {"index": indexed, "models": encodes}
        return Response(json.dumps(state), 200 if indexed and encodes else 503, media_type="application/json")

    @app.get("/metrics", tags=["Operation"], response_class=Response)
    def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/page/{name}", include_in_schema=False)
    def asset(name: str) -> FileResponse:
        known = {file.name: file for file in PAGE.iterdir()}
        if name not in known:
            raise Problem(404, f"the page has no file {name}")
        return FileResponse(known[name])

    app.add_middleware(Guard, settings=settings)
    if settings.origins:  # outermost, because a browser shows a refusal only with these headers
        from fastapi.middleware.cors import CORSMiddleware

        app.add_middleware(CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"])
    return app


def _same_photo(index: Index, product: str, points: Sequence[Point]) -> list[Hit]:
    """Other products that show a photo of a product, each by one of its photos."""
    groups = sorted({point.payload["duplicate"] for point in points})
    same = index.points({"duplicate": groups})
    hits = one_a_product([Hit(point.id, 1.0, point.payload) for point in islice(same, 1000)])
    return [hit for hit in hits if hit.payload["product"] != product][:MOST]


def _found(hits: list[Hit]) -> list[Any]:
    return [found(hit) for hit in hits]


async def _read_search(request: Request) -> tuple[SearchRequest, bytes | None]:
    """The question of JSON, or of a form with the file ``photo``."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    try:
        if kind == "multipart/form-data":
            async with request.form() as form:
                file = form.get("photo")
                if file is None or isinstance(file, str):
                    raise Problem(422, "expected a file in the field photo")
                fields = {key: _form_value(key, str(value)) for key, value in form.items() if key != "photo"}
                return SearchRequest.model_validate({**fields, "photo": "data:,"}), await file.read()
        return SearchRequest.model_validate_json(await request.body()), None
    except ValidationError as error:
        raise problems.invalid(request.url.path, error.errors()) from None


def _form_value(key: str, text: str) -> Any:
    if key not in ("filters", "product_types", "fuse"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Problem(422, f"{key}: expected JSON ({error})") from None


def _jpeg(data: bytes, box: list[float] | None, width: int) -> bytes:
    with Image.open(io.BytesIO(data)) as opened:
        if not box:
            opened.draft("RGB", (width, width))
        image = ImageOps.exif_transpose(opened)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    if box:
        image = image.crop(
            (int(box[0]), int(box[1]), max(int(box[2]), int(box[0]) + 1), max(int(box[3]), int(box[1]) + 1))
        )
    image.thumbnail((width, width * 2))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()


_SEARCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["photo"],
                    "properties": {
                        "photo": {"type": "string", "format": "binary"},
                        "product_type": {"type": "string"},
                        "limit": {"type": "integer"},
                    },
                }
            },
        },
    }
}
_BULK_BODY = {"requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}
