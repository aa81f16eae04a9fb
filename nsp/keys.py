# SPDX-License-Identifier: Apache-2.0
"""``nsp keys``: the key pair that enforcement is signed and verified with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from nsp.errors import CommandError
from schemas.signing import SigningKey

app = typer.Typer(help="Keys of the enforcement channel.", no_args_is_help=True)

PRIVATE_NAME: Final = "enforcement.key.pem"
PUBLIC_NAME: Final = "enforcement.pub.pem"


@app.callback()
def keys() -> None:
    """Keys of the enforcement channel."""


@app.command("generate")
def generate(
    out: Annotated[Path, typer.Option("--out", help="directory for the two files")],
) -> None:
    """Make a key pair: the private key for the stream apps, the public one for every sensor."""
    key = SigningKey.generate()
    private, public = out / PRIVATE_NAME, out / PUBLIC_NAME
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(private, key.to_pem(), 0o600)
        _write_new(public, key.public_pem(), 0o644)
    except FileExistsError as error:
        raise CommandError(
            f"{error.filename} exists", "keys are not overwritten: choose another directory"
        ) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    print(f"key id {key.key_id}")
    print(f"{private}  private: stream apps sign with it, and people who override; keep it secret")
    print(f"{public}  public: every sensor gets it as --enforcement-public-key")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet; nobody else can read it for a moment either."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(content)
