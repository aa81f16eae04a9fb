# SPDX-License-Identifier: Apache-2.0
"""The victim: a small web shop with a command-injection bug in its report page.

``/`` and ``/orders`` are harmless. ``/report?title=...`` pastes the title into a shell command, as
such bugs do. Legitimate use of the page also starts a shell, which never touches the network: a
detector that cried at every shell below a web server would cry here all day.

Usage: web_service.py PORT
"""

from __future__ import annotations

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

REPORT_TIMEOUT_S = 5.0


class Shop(BaseHTTPRequestHandler):
    """Answers GET requests of the shop."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Route one request."""
        url = urlsplit(self.path)
        if url.path == "/report":
            self._answer(self._report(parse_qs(url.query).get("title", ["untitled"])[0]))
        elif url.path in {"/", "/orders"}:
            self._answer("welcome to the shop\n" if url.path == "/" else "3 orders today\n")
        else:
            self.send_error(404)

    def _report(self, title: str) -> str:
        # The bug: the title reaches a shell unquoted.
        command = f"echo Report: {title}; date +%F"
        try:
            done = subprocess.run(  # noqa: S602 - the vulnerability this demonstration exists for
                command, shell=True, capture_output=True, text=True, timeout=REPORT_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return "the report took too long\n"
        return done.stdout

    def _answer(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay quiet: the demonstration's screen tells the story."""


class ShopServer(ThreadingHTTPServer):
    """A server with room for a burst of connections."""

    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    """Serve until killed."""
    with ShopServer(("0.0.0.0", int(sys.argv[1])), Shop) as server:  # noqa: S104 - own namespace
        server.serve_forever()


if __name__ == "__main__":
    main()
