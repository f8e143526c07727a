"""The page in a real browser, Debian's chromium: words, photos, filters, products, keyboard, phone width, dark mode."""

from __future__ import annotations

import base64
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pytest
import uvicorn

from benchmarks.photos import draw_scenes
from search.gateway.app import create_app
from search.gateway.guard import Settings
from search.records import Product, product_of
from search.shop import Shop
from search.store import FolderStore
from serving.server.server import Server
from tests.asking import until
from training.catalogue.scenes import Photo
from vlclip import Client, Status

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("chromium is not installed", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=60_000)

Scheme = Literal["light", "dark"]
SIZES = {"desktop": (1280, 900), "phone": (390, 844), "small phone": (320, 568)}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.grpc_url, timeout=300) as client:
        yield client


@pytest.fixture(scope="module")
def scenes(client: Client) -> list[Photo]:
    """Scenes in which the detector finds the product."""
    drawn = draw_scenes(14, seed=404)
    found = client.embed_images([one.jpeg for one in drawn], [one.items[0].product_type for one in drawn])
    return [one for one, status in zip(drawn, found.status, strict=True) if status == Status.GROUNDED]


@pytest.fixture(scope="module")
def shop(client: Client, scenes: list[Photo], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The scenes as products p0, p1 …, and a copy of p0 named twin."""
    shop = Shop(FolderStore(tmp_path_factory.mktemp("index")), client)
    rows = [(f"p{n}", scene, n) for n, scene in enumerate(scenes)] + [("twin", scenes[0], 0)]
    shop.upsert([_product(*row) for row in rows])
    yield shop
    shop.close()


def _product(name: str, scene: Photo, n: int) -> Product:
    item = scene.items[0]
    return product_of({
        "id": name, "product_type": item.product_type, "title": f"{item.title} {name}", "description": item.description,
        "photos": [scene.jpeg], "colour": item.colour, "in_stock": n % 2 == 0, "price": float(n),
    })  # fmt: skip


@contextmanager
def running(shop: Shop, client: Client, settings: Settings) -> Iterator[str]:
    """The address of a gateway."""
    config = uvicorn.Config(create_app(shop, client, settings), port=0, log_level="warning", lifespan="off")
    gateway = uvicorn.Server(config)
    thread = threading.Thread(target=gateway.run)
    thread.start()
    try:
        until(lambda: gateway.started)
        yield f"http://127.0.0.1:{gateway.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        gateway.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(shop: Shop, client: Client) -> Iterator[str]:
    with running(shop, client, Settings(seconds=300)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    yield from _open(browser, address)


def _open(browser: Browser, address: str, size: str = "desktop", scheme: Scheme = "light") -> Iterator[Page]:
    """A page that fails its test for any error in its scripts."""
    width, height = SIZES[size]
    errors: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    expect(page.locator("#types label").first).to_be_attached()
    yield page
    context.close()
    assert errors == []


def search(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")
    settled(page)


def settled(page: Page) -> None:
    """The answer has come and is shown."""
    expect(page.locator("#status")).to_have_text(re.compile(r"\d+ products? in|No products"))
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")


def show_photo(page: Page, scene: Photo) -> None:
    """Search with a photo, for the product that it shows."""
    page.set_input_files("#file", {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": scene.jpeg})
    settled(page)
    page.select_option("#kind", scene.items[0].product_type)
    expect(page.locator("#seen")).to_have_text(re.compile(f"^Found: {scene.items[0].product_type}"))
    settled(page)


def cards(page: Page) -> list[str]:
    return list(page.locator("article h3").all_inner_texts())


def test_a_person_with_a_keyboard_searches_and_opens_a_product(page: Page, scenes: list[Photo]) -> None:
    page.keyboard.press("/")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type(scenes[1].items[0].caption)
    page.keyboard.press("Enter")
    settled(page)
    assert len(cards(page)) == len(scenes)
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    title = page.locator("article h3").first.inner_text()
    expect(page.locator("article .open").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#product h1")).to_have_text(title)
    page.go_back()
    expect(page.locator("#product")).to_be_hidden()
    expect(page.locator("#text")).to_have_value(scenes[1].items[0].caption)


def test_filters_narrow_have_counts_and_are_part_of_the_address(page: Page, scenes: list[Photo]) -> None:
    item = scenes[2].items[0]
    count = sum(one.items[0].product_type == item.product_type for one in scenes)
    label = page.locator("#types label", has=page.get_by_text(item.product_type, exact=True))
    expect(label.locator("output")).to_have_text(str(count))
    search(page, "a product")
    colours = page.locator("details[data-name=colour]")
    if colours.get_attribute("open") is None:
        colours.locator("summary").click()
    colours.locator("label", has=page.get_by_text(item.colour, exact=True)).click()
    expect(page.locator("#chosen button")).to_have_count(1)
    label.click()
    expect(page.locator("#chosen button")).to_have_text([item.product_type, f"colour: {item.colour}"])
    settled(page)
    kept = cards(page)
    assert kept
    page.reload()
    expect(page.locator("#chosen button")).to_have_count(2)
    settled(page)
    assert cards(page) == kept
    for left in (1, 0):
        page.locator("#chosen button").first.press("Enter")
        expect(page.locator("#chosen button")).to_have_count(left)
    expect(page.locator("article")).to_have_count(len(scenes))


def test_numbers_and_yes_or_no_are_filters(page: Page, scenes: list[Photo]) -> None:
    search(page, "a product")
    page.locator("details[data-name=price] summary").click()
    page.get_by_label("price, from").fill("2")
    page.get_by_label("price, from").press("Tab")
    expect(page.locator("#chosen button")).to_have_text(["price from 2"])
    expect(page.locator("article")).to_have_count(len(scenes) - 2)
    for value, rest in (("true", 0), ("false", 1)):
        label = page.locator("details[data-name=in_stock] label", has=page.get_by_text(value, exact=True))
        label.click()
        expected = [f"p{n}" for n in range(2, len(scenes)) if n % 2 == rest]
        expect(page.locator("article")).to_have_count(len(expected))
        expect(page.locator("article h3").first).to_have_text(re.compile(rf" ({'|'.join(expected)})$"))
        settled(page)
        assert {title.split()[-1] for title in cards(page)} == set(expected)
        label.click()
        expect(page.locator("#chosen button")).to_have_count(1)


def test_a_photo_shows_its_box_and_another_can_be_drawn(page: Page, scenes: list[Photo]) -> None:
    show_photo(page, scenes[3])
    box = page.locator("#box")
    expect(box).to_be_visible()
    first = box.bounding_box()
    stage = page.locator("#stage").bounding_box()
    assert first
    assert stage
    assert stage["x"] - 1 <= first["x"]
    assert first["x"] + first["width"] <= stage["x"] + stage["width"] + 1

    page.mouse.move(stage["x"] + 20, stage["y"] + 20)
    page.mouse.down()
    page.mouse.move(stage["x"] + 160, stage["y"] + 140, steps=4)
    page.mouse.up()
    expect(page.locator("#seen")).to_have_text("Your box was searched.")
    drawn = box.bounding_box()
    assert drawn
    assert (round(drawn["width"]), round(drawn["height"])) == pytest.approx((140, 120), abs=2)

    page.locator("#stage").press("Escape")
    expect(page.locator("#seen")).to_have_text(re.compile("^Found"))
    page.locator("#stage").press("ArrowRight")
    page.locator("#stage").press("Shift+ArrowUp")
    page.locator("#stage").press("Enter")
    expect(page.locator("#seen")).to_have_text("Your box was searched.")
    settled(page)

    page.check("#compare")
    expect(page.locator("#results h2")).to_have_text(["Your box", "The whole photo"])


def test_a_photo_can_be_dropped(page: Page, scenes: list[Photo]) -> None:
    files = page.evaluate_handle(
        """(base64) => {
          const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)), transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
          return transfer;
        }""",
        base64.b64encode(scenes[4].jpeg).decode(),
    )
    page.dispatch_event("body", "drop", {"dataTransfer": files})
    settled(page)
    expect(page.locator("#photo")).to_be_visible()
    search(page, "a product")
    page.go_back()
    expect(page.locator("#photo")).to_be_visible()
    settled(page)


def test_a_file_that_is_no_photo_is_explained(page: Page) -> None:
    page.set_input_files("#file", {"name": "text.txt", "mimeType": "text/plain", "buffer": b"no photo"})
    expect(page.get_by_role("alert")).to_contain_text("not an image")


def test_a_product_has_its_duplicates_similar_products_and_recommendations(page: Page, address: str) -> None:
    page.goto(f"{address}#product=p1")
    settled(page)
    page.goto(f"{address}#product=p0")
    expect(page.locator("#product h1")).to_have_text(re.compile(" p0$"))
    same = page.locator("#results > section", has=page.get_by_text("With the same photo"))
    expect(same.locator("h3")).to_have_text([re.compile(" twin$")])
    recommended = page.locator("#results > section", has=page.get_by_text("For you"))
    expect(recommended.locator("article").first).to_be_visible()
    for title, known in (("Goes with", {"p0", "twin"}), ("For you", {"p0", "p1"})):
        shown = page.locator("#results > section", has=page.get_by_text(title, exact=True)).locator("h3")
        assert not known & {text.split()[-1] for text in shown.all_inner_texts()}
    expect(page.locator("#product .box")).to_be_visible()
    page.get_by_role("button", name="Search with this photo").click()
    expect(page.locator("#picture")).to_be_visible()
    page.goto(f"{address}#product=none")
    expect(page.get_by_role("alert")).to_contain_text("no product 'none'")


@pytest.mark.parametrize("size", SIZES)
def test_every_view_fits_and_every_picture_has_a_text(
    browser: Browser, address: str, size: str, scenes: list[Photo]
) -> None:
    for page in _open(browser, address, size):
        for view in ("home", "text", "product", "photo"):
            if view == "text":
                search(page, "a product")
            elif view == "product":
                page.goto(f"{address}#product=p0")
                settled(page)
            elif view == "photo":
                show_photo(page, scenes[3])
                page.check("#compare")
                expect(page.locator("#results h2")).to_have_count(2)
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) <= 0, view
            for picture in page.locator("#results img, #picture, #product .large").all():
                assert picture.get_attribute("alt"), view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Browser, address: str, scheme: Scheme) -> None:
    for page in _open(browser, address, scheme=scheme):
        search(page, "a product")
        for selector in ("h3", "#status", ".about", ".similar", "#types label", "#ask .primary", "#text"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, selector
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", ground)[0]) < 128) == (scheme == "dark")


CONTRAST = """(selector) => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const element = document.querySelector(selector);
  let ground = element;
  while (rgba(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map((c) => light(rgba(c)));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


def test_without_the_server_of_the_models_the_page_says_so_and_products_still_show(
    page: Page, address: str, shop: Shop
) -> None:
    with Client("127.0.0.1:1", timeout=1) as away:
        there, shop._client = shop._client, away
        try:
            page.fill("#text", "a mug")
            page.press("#text", "Enter")
            expect(page.get_by_role("alert")).to_contain_text("127.0.0.1:1")
            page.goto(f"{address}#product=p1")
            settled(page)
            expect(page.get_by_role("alert")).to_be_hidden()
        finally:
            shop._client = there


def test_a_shop_with_keys_asks_for_one(browser: Browser, shop: Shop, client: Client) -> None:
    with running(shop, client, Settings(keys=frozenset({"secret"}), seconds=300)) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.get_by_role("textbox", name="This shop needs an API key").fill("secret")
        page.keyboard.press("Enter")
        expect(page.locator("#types label").first).to_be_visible()
        search(page, "a product")
        first = page.locator("article img").first
        until(lambda: first.evaluate("image => image.naturalWidth") > 0)
        context.close()
