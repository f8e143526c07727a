"""The gateway's routes for versions: what is served, building the next version, and going back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from search.gateway.problems import Problem
from search.index import IndexFault
from search.ingest import LoadPhoto
from search.shop import Shop
from vlclip import Client, VlclipError

log = logging.getLogger(__name__)


class Progress(BaseModel):
    """The last reindex that was started at this gateway."""

    state: Literal["none", "running", "served", "refused", "failed"] = "none"
    products: int = Field(default=0, description="Products that have been embedded so far")
    figures: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="What the gates compared: of the served collection and of the next one"
    )
    reasons: list[str] = Field(default_factory=list, description="Why the next collection is not served")


class Versions(BaseModel):
    """The collections, one for each version of the models."""

    served: str | None
    previous: str | None = Field(description="The collection that a rollback serves again")
    collections: list[dict[str, Any]]
    reindex: Progress


class Reindexing:
    """Builds the next collection in a thread. One at a time."""

    def __init__(self, shop: Shop, following: Callable[[], Client], load_photo: LoadPhoto) -> None:
        """``following`` gives the client of the models that make the next collection."""
        self._shop, self._following, self._load_photo = shop, following, load_photo
        self._starting = threading.Lock()
        self.progress = Progress()

    def start(self) -> None:
        """Start building. Raises Problem if the next collection is being built already."""
        with self._starting:
            if self.progress.state == "running":
                raise Problem(409, "the next collection is being built already; GET /v1/versions shows its progress")
            self._shop.served()
            self.progress = Progress(state="running")
            threading.Thread(target=self._run, args=[self.progress], daemon=True).start()

    def _run(self, progress: Progress) -> None:
        def count(products: int) -> None:
            progress.products += products

        try:
            built = self._shop.reindex(self._following(), load_photo=self._load_photo, progress=count)
        except (IndexFault, VlclipError, ValueError) as error:
            progress.reasons, progress.state = [str(error)], "failed"
        except BaseException:
            progress.reasons, progress.state = ["the gateway has a fault, which its log describes"], "failed"
            log.exception("the next collection could not be built")
            raise
        else:
            progress.figures = {"served": dict(built.served), "next": dict(built.following)}
            progress.reasons, progress.state = built.failures, "refused" if built.failures else "served"


def router(shop: Shop, following: Callable[[], Client], load_photo: LoadPhoto) -> APIRouter:
    """The routes under /v1/versions. ``load_photo`` loads the stored photos of products."""
    made = APIRouter(prefix="/v1/versions", tags=["Operation"])
    reindexing = Reindexing(shop, following, load_photo)

    @made.get("")
    def versions() -> Versions:
        """The collections, the served one and the one before, and the progress of a reindex."""
        return Versions(**shop.versions(), reindex=reindexing.progress)

    @made.post("", status_code=202)
    def reindex() -> Versions:
        """Build the next collection with the next models, beside the served one, and serve it if it is good.

        The next models are those of `--next`, or those that the server has by now. The answer comes at once; GET shows
        the progress and the result.
        """
        reindexing.start()
        return versions()

    @made.post("/rollback")
    def back() -> Versions:
        """Serve the collection that was served before."""
        shop.rollback()
        return versions()

    return made
