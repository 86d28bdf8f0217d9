"""`HandlerErrors`: what the handlers of a test raised, and what the test expects of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..consuming.delivery import Delivery
from ..errors import Reject, RetryAfter, StopLane

SIGNALS = (Reject, RetryAfter, StopLane)
"""Exceptions with which a handler decides about its message; they are no errors."""


class HandlerErrors:
    """The first error of each message that the test does not expect, until it has been raised."""

    def __init__(self) -> None:
        self._unexpected: dict[tuple[str, str | None, str], Exception] = {}
        self._expected: tuple[type[Exception], ...] = ()
        self._injected: list[Exception] = []

    def expect(self, types: tuple[type[Exception], ...]) -> None:
        """Expect errors of `types`, from now on and among those that were not raised yet."""
        self._expected += types
        self._unexpected = {
            message: error
            for message, error in self._unexpected.items()
            if not isinstance(error, types)
        }

    def inject(self, error: Exception) -> None:
        """Note that the test itself has `error` raised."""
        self._injected.append(error)

    def note(self, error: Exception, delivery: Delivery) -> None:
        """Note that an attempt failed with `error`."""
        message = (delivery.topic, delivery.group, delivery.message.id)
        if isinstance(error, (*SIGNALS, *self._expected)) or message in self._unexpected:
            return
        if any(cause is injected for cause in _causes(error) for injected in self._injected):
            return
        if all(error is not known for known in self._unexpected.values()):
            error.add_note(
                f"raised for message {delivery.message.id} from {delivery.topic} "
                f"(group {delivery.group}, attempt {delivery.attempt}); if the test expects it: "
                f"expect_errors({type(error).__name__}), before draining"
            )
            self._unexpected[message] = error

    def raise_unexpected(self) -> None:
        """Raise the error that was not expected and not raised yet; a group of several."""
        __tracebackhide__ = True  # Pytest shows the handler instead of this function.
        errors = [_from_application(error) for error in self._unexpected.values()]
        self._unexpected.clear()
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup(f"handlers failed for {len(errors)} messages", errors)


def _from_application(error: Exception) -> Exception:
    """Return `error` with a traceback that begins in the application, if it was raised there."""
    found = error.__traceback__
    while found is not None and _is_of_anymq(found.tb_frame.f_globals):
        found = found.tb_next
    return error if found is None else error.with_traceback(found)


def _is_of_anymq(names: Mapping[str, object]) -> bool:
    return str(names.get("__name__")).partition(".")[0] == "anymq"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, and what it was raised from or during."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and all(found is not known for known in seen):
        seen.append(found)
        yield found
        found = found.__cause__ or found.__context__
