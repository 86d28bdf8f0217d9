"""`NativeNames`: the names of topics and groups on the broker."""

from __future__ import annotations

from collections.abc import Mapping


class NativeNames(dict[str, str]):
    """The native names that `connect(names=…)` states. Others are the names, after `prefix`.

    With a prefix of its own, a test on a shared broker has topics and groups that no other uses.
    """

    def __init__(self, stated: Mapping[str, str] | None = None, *, prefix: str = "") -> None:
        super().__init__(stated or {})
        self.prefix = prefix
        self.used: set[str] = set()
        """The topics whose native names were asked for, without those with a stated name."""

    def topic(self, name: str) -> str:
        """Return the native name of the topic `name`."""
        if name not in self:
            self.used.add(name)
        return self.get(name) or self.prefix + name

    def group(self, topic: str, group: str | None) -> str:
        """Return the native name of `group` on `topic`."""
        name = f"{topic}.{group}"
        return self.get(name) or self.prefix + name

    def by_native(self, native: str) -> str:
        """Return the topic whose native name is `native`."""
        found = (name for name, mapped in self.items() if mapped == native)
        return next(found, native.removeprefix(self.prefix))
