# SPDX-License-Identifier: Apache-2.0
"""From the ``detect.sigma`` section of the configuration to what rules are loaded and judged with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_apps.detect.registry import exclusion_of
from stream_apps.sigma.book import RuleBook
from stream_apps.sigma.detector import SigmaDetector, SigmaExclusion
from stream_apps.sigma.loading import files_of
from stream_apps.sigma.translate import Surroundings

if TYPE_CHECKING:
    from stream_apps.config.sigma import SigmaItem


def surroundings(item: SigmaItem) -> Surroundings:
    """What the configuration adds to rules."""
    return Surroundings(item.placeholders, {int(uid): name for uid, name in item.users.items()})


def build_book(item: SigmaItem) -> RuleBook:
    """The rules of the directories.

    Raises:
        OSError: A directory or file cannot be read.
    """
    book = RuleBook(surroundings(item))
    if item.enabled:
        book.base([each for directory in item.directories for each in files_of(directory)])
    return book


def build_detector(item: SigmaItem, book: RuleBook) -> SigmaDetector:
    """Who judges events by the rules of a book."""
    detector = SigmaDetector(book)
    detector.retune(exclusions_of(item), item.severity, enabled=item.enabled)
    return detector


def exclusions_of(item: SigmaItem) -> list[SigmaExclusion]:
    """What rules must not alert on."""
    return [SigmaExclusion(each.rules, exclusion_of(each)) for each in item.exclusions]
