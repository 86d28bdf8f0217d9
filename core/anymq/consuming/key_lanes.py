"""`Lanes`: the buffer of an ordered subscription. One delivery of a key is out at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .delivery import Delivery


class Lanes:
    """Deliveries by key, each key in the order in which they came.

    What can be handed out now is in front, as in a deque: `popleft` takes it and keeps its lane
    closed until `free`. Deliveries without a key wait for nobody. What came before its time
    (`Received.not_before`) closes its lane likewise, when it is its turn: `early` is called with
    it, and sees to it that `again` is.
    """

    def __init__(self, early: Callable[[Delivery], None]) -> None:
        self._early = early
        self._ready: deque[Delivery] = deque()
        self._behind: dict[str, deque[Delivery]] = {}
        self.out: dict[Delivery, None] = {}
        """Handed out and not settled, or waiting for their next attempt."""

    def __len__(self) -> int:
        return len(self._ready)

    def __getitem__(self, index: int) -> Delivery:
        return self._ready[index]

    def __iter__(self) -> Iterator[Delivery]:
        yield from self._ready
        for lane in self._behind.values():
            yield from lane

    def extend(self, deliveries: Iterable[Delivery]) -> None:
        """Put `deliveries` at the ends of their lanes."""
        for delivery in deliveries:
            key = delivery.message.key
            if key is not None:
                if key in self._behind:
                    self._behind[key].append(delivery)
                    continue
                self._behind[key] = deque()
            if delivery.received.not_before is None:
                self._ready.append(delivery)
            else:
                self._wait(delivery)

    def popleft(self) -> Delivery:
        """Take the next delivery; its key is closed until it is freed."""
        delivery = self._ready.popleft()
        self.out[delivery] = None
        return delivery

    def again(self, delivery: Delivery) -> None:
        """Hand `delivery` out before all else: the next attempt of what is out."""
        del self.out[delivery]
        self._ready.appendleft(delivery)

    def replace(self, old: Delivery, new: Delivery) -> None:
        """Let `new` hold the lane that `old` held."""
        self.out.pop(old, None)
        self.out[new] = None

    def free(self, delivery: Delivery) -> bool:
        """Open the lane of `delivery`, which is settled; return whether another can go out."""
        if self.out.pop(delivery, self) is self:
            return False
        return self._open(delivery.message.key)

    def drop(self, unwanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Forget what is `unwanted` and not out, and return it."""
        dropped = [delivery for delivery in self if unwanted(delivery)]
        waiting = {id(delivery) for delivery in self._ready}
        self._ready = deque(item for item in self._ready if not unwanted(item))
        for key, lane in list(self._behind.items()):
            self._behind[key] = deque(item for item in lane if not unwanted(item))
        for delivery in dropped:
            if id(delivery) in waiting:
                self._open(delivery.message.key)
        return dropped

    def _open(self, key: str | None) -> bool:
        if key is None:
            return False
        lane = self._behind[key]
        if not lane:
            del self._behind[key]
            return False
        delivery = lane.popleft()
        if delivery.received.not_before is None:
            self._ready.append(delivery)
            return True
        self._wait(delivery)
        return False

    def _wait(self, delivery: Delivery) -> None:
        self.out[delivery] = None
        self._early(delivery)
