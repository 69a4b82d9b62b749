"""The web pages: the files that `make web` built, and index.html for the addresses of pages."""

import re
from pathlib import Path, PurePosixPath

from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

DIST = Path(__file__).parent / "web" / "dist"
# Vite puts a digest of the content into the names below /assets.
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
# An address of some API, which must not be answered with a page.
_OTHER_API = re.compile(r"v\d+(/|$)")
_NOT_BUILT = """<!doctype html><html lang="en"><title>Headrace</title>
<p>The web pages are not built yet: run <code>make web</code> and load this page again.</p>
<p>The REST API works without them; <a href="/openapi.json">openapi.json</a> describes it.</p></html>"""


def pages(folder: Path = DIST) -> ASGIApp:
    """The application that serves the pages in `folder`, compressed where the browser takes it."""
    return GZipMiddleware(_Pages(folder), minimum_size=1024)


class _Pages:
    def __init__(self, folder: Path):
        self._folder = folder
        self._files = StaticFiles(directory=folder, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._response(scope))(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("Pages are only read.", 405, {"allow": "GET, HEAD"})
        path = scope["path"].lstrip("/")
        if not (self._folder / "index.html").is_file():
            return HTMLResponse(_NOT_BUILT, 404)
        if _OTHER_API.match(path):
            return PlainTextResponse("There is no such page. The REST API is below /v1/.", 404)
        if not PurePosixPath(path).suffix:
            path = "index.html"  # the page's own router reads the address
        return await self._file(path, scope)

    async def _file(self, path: str, scope: Scope) -> Response:
        try:
            response = await self._files.get_response(path, scope)
        except HTTPException as error:
            return PlainTextResponse("There is no such page.", error.status_code)
        response.headers["cache-control"] = _FOR_EVER if path.startswith("assets/") else _ASK_AGAIN
        return response
