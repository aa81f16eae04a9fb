# SPDX-License-Identifier: Apache-2.0
"""A service with a hole: ``/run?c=COMMAND`` is what an exploit gives, all else is its work.

``/fetch?u=URL`` fetches by itself, ``/workers?u=URL`` has it fetched by a worker process, ``/report`` starts
a shell that stays at home.
Usage: service.py PORT
"""

import multiprocessing
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LONGEST_S = 20


def run(command: str) -> bytes:
    """What the command prints; whoever exploits a service does not wait for ever."""
    try:
        done = subprocess.run(  # noqa: S602 - the hole
            command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        return b"too long"
    return done.stdout


def fetch(url: str) -> bytes:
    """A page."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - its owner's
        body: bytes = answer.read()
    return body


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    def do_GET(self) -> None:
        """Route one request."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path == "/run":
            body = run(query["c"][0])
        elif url.path == "/report":
            body = run("date +%F; uname -a | grep -c Linux")
        elif url.path == "/fetch":
            body = fetch(query["u"][0])
        elif url.path == "/workers":
            with multiprocessing.get_context("spawn").Pool(2) as workers:
                body = b"".join(workers.map(fetch, query["u"] * 4))
        else:
            body = b"well\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
