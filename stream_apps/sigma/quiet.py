# SPDX-License-Identifier: Apache-2.0
"""What of a process is known to match no rule: services go to the same places all day.

Input: an event's image and all of the event that a rule can ask about. Output: whether the same of that image
matched nothing before, under the same rules. Only connections, datagrams and questions are remembered: their
facts are the image's own, which never change, and those of the place. Pure and bounded; what is forgotten is
asked again. A pod that becomes known, or another name behind an address, is another place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.bounded import Bounded

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from stream_apps.correlate.pods import Pod
    from stream_apps.detect.scene import Scene

# Places of one image, and of all: a service has some dozen, and 300,000 are about 60 MB.
MAX_PLACES: Final = 256
MAX_ALL_PLACES: Final = 300_000

_QUESTION: Final = "nsp.DnsQuestion"
_OUTGOING: Final = frozenset({"nsp.SocketConnect", "nsp.DatagramSend"})


class _Image:
    """One image, the pod it ran in, and its quiet places."""

    __slots__ = ("forgotten", "places", "pod")

    def __init__(self) -> None:
        self.forgotten = False
        self.pod: Pod | None = None
        self.places: set[Hashable] = set()


class Quiet:
    """Places that match nothing, by image.

    Args:
        by_name: A rule asks for the name behind an address.
    """

    def __init__(self, *, by_name: bool) -> None:
        self._by_name = by_name
        self._images: Bounded[tuple[str, int, int, int], _Image] = Bounded(
            MAX_ALL_PLACES, _Image, self._forget
        )
        self._places = 0
        self._of: list[_Image | None] = []

    def __len__(self) -> int:
        return self._places

    def begin(self, scene: Scene) -> None:
        """A new batch, with new indexes."""
        self._of = [None] * len(scene.view.processes)

    def place(self, scene: Scene, kind: str, index: int, event: Mapping[str, Any]) -> Hashable | None:
        """All of an event that rules can ask about; None when that is not remembered."""
        if kind in _OUTGOING:
            address = event["remote_address"]
            name = scene.name_behind(index, address, event["ktime_ns"]) if self._by_name else None
            return kind, event["protocol"], address, event["remote_port"], name.name if name else None
        if kind == _QUESTION:
            return event["question_type"], event["name"]
        return None

    def knows(self, scene: Scene, index: int, place: Hashable) -> bool:
        """Whether the place matched nothing before."""
        return place in self._at(scene, index).places

    def add(self, scene: Scene, index: int, place: Hashable) -> None:
        """The place matched nothing."""
        places = self._at(scene, index).places
        if len(places) >= MAX_PLACES:
            self._places -= len(places)
            places.clear()
        places.add(place)
        self._places += 1
        while self._places > MAX_ALL_PLACES:
            self._images.drop_oldest()

    def _forget(self, image: _Image) -> None:
        image.forgotten = True
        self._places -= len(image.places)

    def _at(self, scene: Scene, index: int) -> _Image:
        found = self._of[index]
        if found is None or found.forgotten:
            image = scene.view.processes[index]
            found = self._images.at((scene.view.node, image["tgid"], image["start_ns"], image["image_ns"]))
            self._of[index] = found
            pod = scene.pod(index)
            if pod is not found.pod:
                found.pod = pod
                self._places -= len(found.places)
                found.places.clear()
        return found
