# SPDX-License-Identifier: Apache-2.0
"""The services of the scenarios: how each is started, whether it is up, how its hole or its work is reached.

Input: a service's kind and port. Output: the commands, some of which are run inside, some outside. Failure:
:class:`UnableError` where a kind cannot run on this machine.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.processes import WORKLOAD_ENVIRONMENT
from tests.support.scenarios.world import INSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

ACTORS: Final = Path(__file__).parent / "actors"
PYTHON: Final = "/usr/bin/python3"
_INITDB_S: Final = 60.0
_SCRIPTED: Final = {
    "python": [PYTHON, str(ACTORS / "service.py")],
    "java": ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(ACTORS / "Service.java")],
    "node": ["node", str(ACTORS / "service.js")],
    "perl": ["perl", str(ACTORS / "service.pl")],
}  # fmt: skip
KINDS: Final = frozenset({*_SCRIPTED, "php", "cgi", "postgres"})
_ADDRESS_WORK: Final = frozenset({"fetch", "workers"})


class UnableError(Exception):
    """A scenario cannot be run here; says why."""


def found(program: str) -> str:
    """The path of a program that a workload may use."""
    path = shutil.which(program, path=WORKLOAD_ENVIRONMENT["PATH"])
    if path is None:
        message = f"{program} is not installed"
        raise UnableError(message)
    return path


class Services:
    """Makes commands, and what they need on disk. A context manager that removes that again."""

    def __init__(self) -> None:
        # Not below a test's own directory: a database's user may not go there.
        self._directory = Path(tempfile.mkdtemp(prefix="nsp-scenarios-", dir="/var/lib"))
        self._directory.chmod(0o755)
        self._database: Path | None = None

    def remove(self) -> None:
        """Remove what is on disk."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def command(self, kind: str, port: int) -> list[str]:
        """What starts a service."""
        if kind == "php":
            return [found("php"), "-S", f"0.0.0.0:{port}", str(ACTORS / "service.php")]
        if kind == "cgi":
            return [found("busybox"), "httpd", "-f", "-p", str(port), "-h", str(self._pages())]
        if kind == "postgres":
            return self._postgres(port)
        found(_SCRIPTED[kind][0])
        if kind == "java" and not _compiles_java():
            message = "a Java compiler is not installed"
            raise UnableError(message)
        return [*_SCRIPTED[kind], str(port)]

    def _pages(self) -> Path:
        programs = self._directory / "cgi-bin"
        programs.mkdir(exist_ok=True)
        for each in ACTORS.glob("*.cgi"):
            shutil.copy(each, programs / each.name)
            (programs / each.name).chmod(0o755)
        return self._directory

    def _postgres(self, port: int) -> list[str]:
        found("psql")
        programs = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None)
        if programs is None:
            message = "postgres is not installed"
            raise UnableError(message)
        if self._database is None:
            self._database = self._init_database(programs.parent)
        home = self._directory / f"database-{port}"
        shutil.copytree(self._database, home)
        subprocess.run(["chown", "-R", "postgres:", home], check=True)
        options = {"listen_addresses": "*", "port": str(port), "fsync": "off", "unix_socket_directories": ""}
        given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [*_AS_POSTGRES, str(programs), "-D", str(home), *given]

    def _init_database(self, programs: Path) -> Path:
        home = self._directory / "database"
        home.mkdir()
        try:
            shutil.chown(home, "postgres")
        except LookupError as error:
            message = "the user postgres is not installed"
            raise UnableError(message) from error
        command = [
            *_AS_POSTGRES,
            str(programs / "initdb"),
            "-A",
            "trust",
            "-N",
            "--no-locale",
            "-D",
            str(home),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INITDB_S, check=False, cwd="/"
        )
        if done.returncode:
            message = f"initdb: {done.stderr.strip()[-300:]}"
            raise UnableError(message)
        with (home / "pg_hba.conf").open("a") as file:
            file.write("host all all all trust\n")
        return home


_AS_POSTGRES: Final = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")


def _compiles_java() -> bool:
    """A runtime without the compiler cannot start a program from its source."""
    modules = subprocess.run(["java", "--list-modules"], capture_output=True, text=True, check=False)
    return "jdk.compiler" in modules.stdout


def is_up(kind: str, port: int) -> list[str]:
    """What succeeds outside as soon as a service answers."""
    if kind == "postgres":
        return [*_psql(port), "select 1"]
    return ["curl", "-s", "-o", "/dev/null", "-m", "2", f"http://{INSIDE}:{port}/"]


def requests(kind: str, work: str, script: str, port: int) -> Iterator[list[str]]:
    """What is done outside to have a service run a script, or do a piece of its own work."""
    if kind == "postgres":
        quoted = script.replace("'", "''")
        yield [*_psql(port), script if work else f"copy (select 1) to program '{quoted}'"]
        return
    place = f"http://{INSIDE}:{port}/"
    if kind == "cgi":
        place += f"cgi-bin/{work or 'run'}.cgi"
    else:
        place += work or "run"
    if work in _ADDRESS_WORK:
        for url in script.split():
            yield ["curl", "-s", "-G", "--data-urlencode", f"u={url}", place]
    elif work:
        yield ["curl", "-s", f"{place}?{script}"]
    else:
        yield ["curl", "-s", "-G", "--data-urlencode", f"c={script}", place]


def _psql(port: int) -> list[str]:
    return ["psql", "-q", "-h", INSIDE, "-p", str(port), "-U", "postgres", "-c"]
