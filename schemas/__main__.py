# SPDX-License-Identifier: Apache-2.0
"""``python -m schemas check`` judges the contract; ``python -m schemas release VERSION`` archives it."""

from __future__ import annotations

import argparse
import shutil
import sys

from schemas.catalogue import CURRENT, RELEASED, archived, current, undocumented
from schemas.compatibility import incompatibilities
from schemas.errors import SchemaError
from schemas.samples import load_samples, problem_with
from schemas.topics import TOPICS


def check() -> list[str]:
    """Everything that is wrong with the contract as it stands, a line each."""
    problems = []
    for schema in current().values():
        problems += [f"{name}: has no doc" for name in undocumented(schema.parsed)]
        samples = list(load_samples(schema.name))
        if not any(each.reason is None for each in samples) or all(each.reason is None for each in samples):
            problems.append(f"{schema.name}: needs a valid and an invalid sample")
        for sample in samples:
            problem = problem_with(sample)
            if problem:
                problems.append(f"{sample.name}/{sample.path.parent.name}/{sample.path.name}: {problem}")
    problems += [
        f"{each.name}: no schema {each.value}" for each in TOPICS.values() if each.value not in current()
    ]
    return problems + incompatibilities(current(), archived())


def release(version: str) -> None:
    """Copy the current schemas to the archive.

    Raises:
        SchemaError: The version is there already: a released schema is never edited.
    """
    target = RELEASED / version
    if target.exists():
        raise SchemaError(f"{version} is released: its schemas are never edited")
    shutil.copytree(CURRENT, target)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when all is well."""
    parser = argparse.ArgumentParser(prog="python -m schemas", description="The contract's own checks.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="samples, docs, topics, compatibility with every release")
    commands.add_parser("release", help="archive the current schemas").add_argument("version")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "release":
            release(chosen.version)
            return 0
        problems = check()
    except SchemaError as error:
        problems = [str(error)]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if not problems:
        sys.stdout.write(
            f"{len(current())} schemas, {len(list(load_samples()))} samples: all as they should be\n"
        )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
