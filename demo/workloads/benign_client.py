# SPDX-License-Identifier: Apache-2.0
"""A customer who uses the shop all the time and counts what fails.

Each round resolves the shop's name, asks three pages on fresh connections and prints one JSON line
``{"requests": n, "failed": n}`` with the totals so far. Ends on SIGTERM with a last line.

Usage: benign_client.py NAME PORT
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
import time

PAUSE_S = 0.03
TIMEOUT_S = 3.0
PAGES = ("/", "/orders", "/report?title=weekly")


class Customer:
    """Requests pages until told to stop."""

    def __init__(self, host: str, port: int) -> None:
        """Remember where the shop is."""
        self._host, self._port = host, port
        self.requests = self.failed = 0
        self.stopping = False

    def visit(self, page: str) -> None:
        """Ask one page on a connection of its own."""
        self.requests += 1
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", page)
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK or not response.read():
                self.failed += 1
        except OSError as error:
            self.failed += 1
            sys.stderr.write(f"{page}: {error}\n")
        finally:
            connection.close()

    def report(self) -> None:
        """Print the totals so far."""
        sys.stdout.write(json.dumps({"requests": self.requests, "failed": self.failed}) + "\n")
        sys.stdout.flush()

    def stop(self, *_: object) -> None:
        """Finish the round, then end."""
        self.stopping = True


def main() -> None:
    """Visit page after page until SIGTERM."""
    customer = Customer(sys.argv[1], int(sys.argv[2]))
    signal.signal(signal.SIGTERM, customer.stop)
    while not customer.stopping:
        for page in PAGES:
            customer.visit(page)
            time.sleep(PAUSE_S)
        customer.report()


if __name__ == "__main__":
    main()
