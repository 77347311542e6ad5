"""The page's files, and what a browser may do with them."""

from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

HEADERS = {
    # Nothing from or to another site, no code or style in the markup, not inside another site's frame; blob: is what
    # the page made itself, the recording that is played.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",  # asked for anew after an upgrade, and answered 304 otherwise
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Site(StaticFiles):
    """Static files with these headers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or 304 where the browser has it."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
