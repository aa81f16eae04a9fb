# SPDX-License-Identifier: Apache-2.0
"""Becoming another package's program, and the two errands of the sensor.

``exec`` instead of a call: the long-lived process then holds none of this package's libraries, and signals
reach it directly.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nsp.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOT = Path(__file__).parent.parent


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by ``python -m module arguments``."""
    environment = dict(os.environ)
    # -P: `python -m` would import from the current directory first, which may be anybody's.
    if (
        str(_ROOT) not in sys.path[1:]
    ):  # a checkout that is not installed is found through that directory only
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
        )
    sys.stdout.flush()
    os.execve(  # noqa: S606 - no shell is wanted
        sys.executable, [sys.executable, "-P", "-m", module, *arguments], environment
    )


def sensor_check(arguments: Sequence[str]) -> None:
    """Say whether this machine can run the sensor.

    Raises:
        CommandError: It cannot; the reasons are printed.
    """
    argparse.ArgumentParser(
        prog="nsp sensor check", description="Say whether this machine can run the sensor."
    ).parse_args(arguments)
    from sensor.kernel.support import check_support  # noqa: PLC0415 - other commands need no kernel

    problems = check_support()
    for problem in problems:
        print(f"{problem.cause}\n    {problem.cure}")
    if problems:
        raise CommandError("this machine cannot run the sensor", "see above")
    print("this machine can run the sensor")


def sensor_unload(arguments: Sequence[str]) -> None:
    """Detach all programs and remove all pins: enforcement ends.

    Raises:
        CommandError: A sensor is running, or there is no permission.
    """
    from sensor.kernel.errors import KernelError  # noqa: PLC0415 - other commands need no kernel
    from sensor.kernel.runtime import DEFAULT_PIN_DIRECTORY, Kernel  # noqa: PLC0415 - same

    parser = argparse.ArgumentParser(
        prog="nsp sensor unload", description="Detach all programs and remove all pins: enforcement ends."
    )
    parser.add_argument(
        "--pin-directory", type=Path, default=DEFAULT_PIN_DIRECTORY, help="default: %(default)s"
    )
    pin_directory: Path = parser.parse_args(arguments).pin_directory
    if not pin_directory.is_dir():
        print(f"nothing is pinned in {pin_directory}")
        return
    try:
        Kernel.unload(pin_directory)
    except KernelError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{pin_directory}: {error.strerror}", "run as root") from error
    print(f"unloaded: nothing of {pin_directory} is left in the kernel")
