"""A page for this machine alone that shows how runs stand, and refreshes itself.

Read-only: it has one address, ``/``, and takes nothing from a request but its path and its host.
"""

from __future__ import annotations

import html
import ipaddress
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
"""Hosts that a request may ask for: another name that leads here is another site's trick."""
REFRESH_S = 5

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{seconds}">
<title>gptopt</title></head><body><pre>{text}</pre></body></html>
"""


def address(text: str) -> tuple[str, int]:
    """``8000`` or ``127.0.0.1:8000`` as host and port.

    Raises:
        ValueError: No port, or a host that is not this machine's own: the page has no password.
    """
    host, colon, port = text.rpartition(":")
    host = host if colon else HOST
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r}: it takes a port from 0 to 65535, such as 8000.")
    try:
        is_own = host == "localhost" or ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        is_own = False
    if not is_own:
        raise ValueError(
            f"{text!r}: the page is served on {HOST} only; from elsewhere use"
            f" ssh -L {port}:{HOST}:{port} <this machine>."
        )
    return (HOST if host == "localhost" else host), int(port)


def server(place: tuple[str, int], lines: Callable[[], list[str]]) -> ThreadingHTTPServer:
    """A server that shows ``lines`` at ``/``; start it with ``serve_forever``.

    Args:
        place: As ``address`` gives it.
        lines: Called for each request.

    Raises:
        ValueError: The port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802, the name is the library's
            name = self.headers.get("Host", "").partition(":")[0]
            if name not in (*NAMES, place[0]):
                self.send_error(403, "not for this host")
            elif self.path != "/":
                self.send_error(404)
            else:
                text = html.escape("\n".join(lines()))
                self._send(PAGE.format(seconds=REFRESH_S, text=text).encode())

        def _send(self, page: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Frame-Options", "DENY")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            pass  # a line per request, every few seconds, says nothing

    try:
        return ThreadingHTTPServer(place, Handler)
    except OSError as error:
        raise ValueError(f"{place[0]}:{place[1]}: {error.strerror or error}.") from error
