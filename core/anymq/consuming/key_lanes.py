"""`KeyLanes`: the buffer of an ordered subscription, which dispatches one delivery of a key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from .delivery import Delivery


class KeyLanes:
    """Buffered deliveries by key, each key in the order of receipt.

    The deliveries that can be dispatched are in front, as in a deque: `popleft` takes one and keeps
    its key closed until `free`. Deliveries without a key wait for no other. A delivery that arrived
    before its time (`Received.not_before`) also closes its key when its turn comes: `early` is
    called with it, and must call `again` when it is due.
    """

    def __init__(self, early: Callable[[Delivery], None]) -> None:
        self._early = early
        self._ready: deque[Delivery] = deque()
        self._behind: dict[str, deque[Delivery]] = {}
        self.early = 0
        """The deliveries so far that had to wait for their time, and entered `again`."""
        self.out: dict[Delivery, None] = {}
        """Dispatched and not settled, or waiting for their next attempt."""

    def __len__(self) -> int:
        return len(self._ready)

    def __getitem__(self, index: int) -> Delivery:
        return self._ready[index]

    def __iter__(self) -> Iterator[Delivery]:
        yield from self._ready
        for lane in self._behind.values():
            yield from lane

    def extend(self, deliveries: Iterable[Delivery]) -> None:
        """Append `deliveries` to their keys."""
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
        """Take the next delivery. Its key is closed until `free`."""
        delivery = self._ready.popleft()
        self.out[delivery] = None
        return delivery

    def again(self, delivery: Delivery) -> None:
        """Put `delivery`, whose next attempt is due, in front of all others."""
        del self.out[delivery]
        self._ready.appendleft(delivery)

    def replace(self, old: Delivery, new: Delivery) -> None:
        """Let `new` hold the key that `old` held."""
        self.out.pop(old, None)
        self.out[new] = None

    def free(self, delivery: Delivery) -> bool:
        """Open the key of a settled delivery; return whether another can be dispatched."""
        if self.out.pop(delivery, self) is self:
            return False
        return self._open(delivery.message.key)

    def drop(self, unwanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Remove `unwanted` deliveries that are not dispatched, and return them."""
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
        self.early += 1
        self.out[delivery] = None
        self._early(delivery)
