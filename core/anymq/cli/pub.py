"""`anymq pub`: publishes one message, or the lines of standard input."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..errors import AnymqError
from ..logs import shown
from ..message import Receipt
from ..names import check_topic
from .common import DEFAULT, Common, Flag
from .failures import UsageError
from .outgoing import BadLine, Outgoing, of_line, of_text
from .output import Output
from .sending import Sending, Unsendable
from .streams import LineTooLong, input_lines
from .templates import Values, differs
from .values import Duration, Rate, Time, converter

if TYPE_CHECKING:
    from ..broker import Broker

SMALLEST_LIMIT = 1024 * 1024
PER_BODY = 8
"""A line may have this many bytes for each byte of the largest body: JSON escapes take six."""
_OPTION = re.compile(r"--?[A-Za-z]")


def data_of(text: str) -> str:
    """Return DATA; raises `ValueError` for what is rather a mistyped option."""
    if _OPTION.match(text):
        raise ValueError(
            f"there is no option {text!r}; a body that begins with it comes from standard input"
        )
    return text


Data = Annotated[str, converter(data_of), Parameter(allow_leading_hyphen=True)]


async def pub(
    topic: str,
    data: Data | None = None,
    /,
    *,
    key: Annotated[str | None, Parameter(name=("--key", "-k"))] = None,
    header: Annotated[
        tuple[str, ...], Parameter(name=("--header", "-H"), negative="", show_default=False)
    ] = (),
    id: str | None = None,
    type: str | None = None,
    delay: Duration | None = None,
    at: Time | None = None,
    count: int | None = None,
    rate: Rate | None = None,
    plain: Flag = False,
    common: Common = DEFAULT,
) -> None:
    """Publish a message, or each line of standard input.

    Each line of standard input is JSON, and becomes the body of a message as it is; a line that
    `anymq sub --json` wrote is published with its key, headers, type and body. At the first line
    that cannot be published the command stops, names it, and exits with 1. `{{count}}`, `{{uuid}}`
    and `{{time}}` in DATA, the key, the id and the headers are replaced in each message.

    JSON: kind `receipt` for each message: id, topic, position and duplicate.

    Parameters
    ----------
    topic
        The topic; it is created if there is none.
    data
        The body. With `-`, or without DATA in a pipe, each line of standard input is a message.
    key
        The key: messages of one key keep their order.
    header
        A header, as NAME:VALUE; may be repeated.
    id
        The message's id (default: a new UUID).
    type
        The CloudEvents type (default: the topic).
    delay
        Deliver the message after this time, such as 5s or 2h.
    at
        Deliver the message at this time, such as 2026-11-28T10:00.
    count
        Publish DATA this many times.
    rate
        Publish at most so many messages for each second, or 10/m, 100/h.
    plain
        Publish lines as they are: text, and also what `anymq sub --json` wrote.
    """
    check_topic(topic)
    options = Options(key=key, headers=_headers(header), id=id, type=type)
    reads = data == "-" or (data is None and not sys.stdin.isatty())
    options.check(data, reads=reads, count=count)
    if delay is not None and at is not None:
        raise UsageError("--delay and --at both say when; give one of them")
    async with common.connect() as broker:
        publishing = Publishing(broker, topic, options, delay=delay, at=at, output=common.output)
        if reads:
            await publishing.all(publishing.lines(plain=plain), unit="line", rate=rate)
        elif count is None:
            await publishing.one(data or "")
        else:
            messages = publishing.repeated(data or "", count)
            await publishing.all(messages, unit="message", rate=rate, total=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parts of every message that options give."""

    key: str | None
    headers: Mapping[str, str]
    id: str | None
    type: str | None

    def check(self, data: str | None, *, reads: bool, count: int | None) -> None:
        """Raise `UsageError` for options that make no sense together."""
        if data is None and not reads:
            raise UsageError("no DATA, and standard input is a terminal; write - to type lines")
        if data is not None and not _is_text(data):
            raise UsageError("DATA is not UTF-8", hint="bytes: an envelope with body_base64")
        if reads and count is not None:
            raise UsageError("--count repeats DATA; standard input has its own number of messages")
        if count is not None and count < 1:
            raise UsageError("--count is at least 1")
        if self.id is not None and (reads or (count or 1) > 1) and not differs(self.id):
            raise UsageError(
                "--id would give one id to many messages", hint="write --id 'order-{{count}}'"
            )

    def applied(self, message: Outgoing, values: Values) -> Outgoing:
        """Return `message` with these parts in place of its own."""
        if self.is_empty:
            return message
        headers = {name: values.fill(value) for name, value in self.headers.items()}
        return replace(
            message,
            key=message.key if self.key is None else values.fill(self.key),
            headers={**message.headers, **headers},
            id=None if self.id is None else values.fill(self.id),
            type=self.type or message.type,
        )

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return (self.key, self.id, self.type) == (None, None, None) and not self.headers


class Publishing:
    """Publishes the messages of one command."""

    def __init__(
        self,
        broker: Broker,
        topic: str,
        options: Options,
        *,
        delay: timedelta | None,
        at: datetime | None,
        output: Output,
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._options = options
        self._delay = delay
        self._at = at
        self._output = output

    async def one(self, data: str) -> None:
        """Publish one message, and write its receipt."""
        values = Values(1)
        message = self._options.applied(of_text(values.fill(data)), values)
        receipt = await self._publish(message)
        text = f"{shown(receipt.topic)} id={shown(receipt.id)} position={receipt.position or '-'}"
        if receipt.duplicate:
            text += " (a duplicate: not stored again)"
        self._output.result("receipt", receipt._asdict(), text)

    async def all(
        self,
        messages: AsyncIterator[tuple[int, Outgoing]],
        *,
        unit: str,
        rate: float | None,
        total: int | None = None,
    ) -> None:
        """Publish `messages`; write their number, and with `--json` every receipt."""
        output = self._output
        progress = output.progress("publishing", total)
        # A bar would disturb a user who types the lines.
        progress.disable = progress.disable or (unit == "line" and sys.stdin.isatty())

        def confirmed(receipt: Receipt) -> None:
            output.result("receipt", receipt._asdict())
            if not progress.disable:
                progress.update(progress.task_ids[0], completed=sending.count)

        sending = Sending(self._publish, unit=unit, rate=rate, confirmed=confirmed)
        try:
            with progress:
                await sending.run(messages)
        except asyncio.CancelledError:
            left = sending.unconfirmed
            more = f", and perhaps {left} more" if left else ""
            output.note(f"interrupted: published {sending.count}{more} to {self._topic}")
            raise
        output.note(f"published {sending.count} to {self._topic}")

    async def lines(self, *, plain: bool) -> AsyncIterator[tuple[int, Outgoing]]:
        """Yield the messages of standard input with the numbers of their lines."""
        limit = PER_BODY * int(self._broker.max_body) + SMALLEST_LIMIT
        number = count = 0
        try:
            async for line in input_lines(limit):
                number += 1
                if line.strip():
                    count += 1
                    values = Values(count)
                    make = partial(of_line, line, plain=plain)
                    yield number, self._message(number, values, make)
        except LineTooLong:
            raise Unsendable(number + 1, f"longer than {limit} bytes") from None

    async def repeated(self, data: str, count: int) -> AsyncIterator[tuple[int, Outgoing]]:
        """Yield `count` messages of `data`."""
        for number in range(1, count + 1):
            values = Values(number)
            yield number, self._message(number, values, partial(of_text, values.fill(data)))

    def _message(self, number: int, values: Values, make: Callable[[], Outgoing]) -> Outgoing:
        try:
            message = self._options.applied(make(), values)
            message.check(self._broker.max_body)
        except (BadLine, AnymqError) as error:
            raise Unsendable(number, str(error)) from error
        return message

    async def _publish(self, message: Outgoing) -> Receipt:
        return await self._broker.publish(
            self._topic,
            message.body,
            key=message.key,
            headers=message.headers,
            id=message.id,
            type=message.type,
            delay=self._delay,
            deliver_at=self._at,
            content_type=message.content_type,
            correlation_id=message.correlation_id,
            causation_id=message.causation_id,
        )


def _is_text(data: str) -> bool:
    """Whether an argument was UTF-8: Python reads other bytes as lone surrogates."""
    try:
        data.encode()
    except UnicodeEncodeError:
        return False
    return True


def _headers(given: Sequence[str]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or name in headers:
            problem = "is no header" if not colon else "gives that header twice"
            raise UsageError(f"{text!r} {problem}; write -H NAME:VALUE")
        headers[name] = value.strip(" ")
    return headers
