"""`admin.dead_letters`: list, show, redrive, edit, discard and export dead letters."""

from __future__ import annotations

import json

import pytest

from ...broker import Broker
from ...connect import connect
from ...driver.records import Record
from ...errors import NotFound, Reject, StateError, UnsupportedOperation
from ...ids import new_id
from ...middleware import Acknowledge, DeadLetter, Retry
from ...operating.dead_letters import DeadLetters
from ...operating.letter import Letter
from ..tools import bodies, eventually, silent, take, take_acked, until
from .base import Base
from .needs import needs

CHAIN = (Acknowledge(), DeadLetter(), Retry(attempts=2, initial=0.01))


async def reject(broker: Broker, topic: str, payloads: list[str], group: str = "g") -> None:
    """Publish `payloads`, and reject all of them in `group`."""
    await broker.publish_many(topic, payloads, key=lambda body: body, headers={"tenant": "a"})
    async with broker.subscribe(topic, group=group) as deliveries:
        for _ in payloads:
            (delivery,) = await take(deliveries, 1)
            await delivery.reject(f"no {delivery.message.body.decode()}")


async def the_only(letters: DeadLetters) -> Letter:
    """Return the only letter, once it is stored."""
    (letter,) = await eventually(letters.list, bool)
    assert isinstance(letter, Letter)
    return letter


@needs("replay")
class Redrive(Base):
    """Rejected messages can be listed and redriven."""

    async def test_letters_are_listed_and_shown(self, broker: Broker, topic: str) -> None:
        letters = broker.admin.dead_letters(topic, "g")
        assert await letters.list() == []
        await reject(broker, topic, ["a", "b", "c"])
        listed = await letters.list()
        assert sorted(letter.message.body for letter in listed) == [b"a", b"b", b"c"]
        (letter,) = await letters.list(where=lambda item: item.reason == "no b")
        assert (letter.topic, letter.group, letter.attempts) == (topic, "g", 1)
        assert letter.message.key == "b"
        assert letter.message.headers["tenant"] == "a"
        assert letter.failed_at is not None
        assert letter.history == ()
        assert await letters.show(letter.position) == letter
        assert await letters.count() == 3
        assert len(await letters.list(limit=2)) == 2
        with pytest.raises(NotFound):
            await letters.show("nowhere")

    async def test_letters_are_redriven_to_their_group_alone(
        self, broker: Broker, topic: str
    ) -> None:
        await reject(broker, topic, ["a", "b"])
        async with broker.subscribe(topic, group="other") as other:
            await take_acked(other, 2)
            letters = broker.admin.dead_letters(topic, "g")
            (letter,) = await letters.list(where=lambda item: item.message.body == b"a")
            assert await letters.redrive(letter) == 1
            async with broker.subscribe(topic, group="g") as deliveries:
                (delivery,) = await take_acked(deliveries, 1)
                assert (delivery.message.id, delivery.attempt) == (letter.message.id, 1)
                assert delivery.message.key == "a"
                assert delivery.message.headers["tenant"] == "a"
                assert "anymq-dlq-reason" not in delivery.message.headers
                await silent(deliveries, 0.2)
            assert [item.message.body for item in await letters.list()] == [b"b"]
            await silent(other, 0.5)

    async def test_letters_contain_the_traceback(self, broker: Broker, topic: str) -> None:
        async def call_the_bank(body: str) -> None:
            raise RuntimeError("no bank" if body == "a" else f"no bank {'x' * 50_000}")

        letters = broker.admin.dead_letters(topic, "g")
        await broker.publish_many(topic, ["a", "b"])
        async with broker.subscribe(topic, group="g", handler=call_the_bank, middleware=CHAIN):
            found = await eventually(letters.list, lambda seen: len(seen) == 2)
        traces = {letter.message.body: letter.traceback or "" for letter in found}
        assert traces[b"a"].endswith("RuntimeError: no bank\n")
        assert "in call_the_bank\n    raise RuntimeError(" in traces[b"a"]
        assert 4000 < len(traces[b"b"]) <= 4096
        assert traces[b"b"].endswith("xxx\n")
        assert await letters.redrive_all() == 2
        async with broker.subscribe(topic, group="g") as deliveries:
            for delivery in await take_acked(deliveries, 2):
                assert not [name for name in delivery.message.headers if "traceback" in name]

    async def test_letters_keep_their_history(self, broker: Broker, topic: str) -> None:
        rounds: list[int] = []

        async def fail(body: str) -> None:
            raise Reject(f"failure {len(rounds)}") if rounds else RuntimeError("first")

        letters = broker.admin.dead_letters(topic, "g")
        await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="g", handler=fail, middleware=CHAIN):
            for number in (1, 2):
                letter = await the_only(letters)
                assert len(letter.history) == number - 1
                rounds.append(number)
                await letters.redrive(letter.position)
            letter = await the_only(letters)
        assert letter.reason == "failure 2"
        assert [item["reason"][:8] for item in letter.history] == ["retries ", "failure "]
        assert letter.history[0]["attempts"] == "2"

    async def test_letters_are_redriven_all_or_selected(self, broker: Broker, topic: str) -> None:
        many = [f"{number}" for number in range(450)]
        await reject(broker, topic, many)
        letters = broker.admin.dead_letters(topic, "g")
        assert await letters.redrive_all(where=lambda item: item.reason == "no 17") == 1
        assert await letters.redrive_all() == 449
        assert await letters.list() == []
        async with broker.subscribe(topic, group="g") as deliveries:
            received = bodies(await take_acked(deliveries, 450, within=60))
            assert sorted(received) == sorted(many)
            await silent(deliveries, 0.2)

    async def test_letters_are_edited_and_redriven(self, broker: Broker, topic: str) -> None:
        await reject(broker, topic, ["bad"])
        letters = broker.admin.dead_letters(topic, "g")
        (letter,) = await letters.list()
        await letters.redrive_edited(letter, {"good": True}, headers={"edited-by": "me"})
        async with broker.subscribe(topic, group="g") as deliveries:
            (delivery,) = await take_acked(deliveries, 1)
        assert delivery.message.body == b'{"good":true}'
        assert delivery.message.content_type == "application/json"
        assert delivery.message.id == letter.message.id
        assert delivery.message.headers["edited-by"] == "me"
        assert "tenant" not in delivery.message.headers
        assert await letters.count() == 0

    async def test_letters_are_discarded_and_exported(self, broker: Broker, topic: str) -> None:
        await reject(broker, topic, ["a", "b", "c"])
        letters = broker.admin.dead_letters(topic, "g")
        lines = [json.loads(line) async for line in letters.export()]
        assert sorted(line["body"] for line in lines) == ["a", "b", "c"]
        assert {line["group"] for line in lines} == {"g"}
        first = (await letters.list())[0]
        assert await letters.drop(first.position) == 1
        with pytest.raises(NotFound):
            await letters.drop(first.position)
        assert await letters.drop_all() == 2
        assert await letters.count() == 0
        async with broker.subscribe(topic, group="g") as deliveries:
            await silent(deliveries, 0.5)

    async def test_letters_survive_a_redrive_that_is_cut_short(
        self, broker: Broker, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await reject(broker, topic, ["x"])
        letters = broker.admin.dead_letters(topic, "g")

        async def die(*_: object) -> None:
            raise RuntimeError("killed between the copy and the note")

        monkeypatch.setattr(letters, "_note", die)
        with pytest.raises(RuntimeError):
            await letters.redrive_all()
        monkeypatch.undo()
        assert await letters.count() == 1
        assert await letters.redrive_all() == 1
        async with broker.subscribe(topic, group="g") as deliveries:
            again = await take_acked(deliveries, 2)
        assert len({delivery.message.id for delivery in again}) == 1

    async def test_letters_of_another_group_are_not_discarded(
        self, broker: Broker, topic: str
    ) -> None:
        await reject(broker, topic, ["x"], "a")
        async with broker.subscribe(topic, group="b") as deliveries:
            (delivery,) = await take(deliveries, 1)
            await delivery.reject("no")
        assert await broker.admin.dead_letters(topic, "a").drop_all() == 1
        assert await broker.admin.dead_letters(topic, "b").count() == 1

    @pytest.mark.parametrize("named", [False, True])
    async def test_letters_whose_topic_is_missing_are_logged_at_once_and_not_lost(
        self, named: bool, url: str, broker: Broker, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        where = f"{topic}.refused" if named else f"{topic}.g.dlq"
        chain = (Acknowledge(), DeadLetter(topic=where if named else None))
        await broker.publish(topic, "bad")
        async with broker.subscribe(topic, group="g"):
            pass  # the operator creates the group
        handled: list[str] = []

        async def handle(body: str) -> None:
            handled.append(body)
            if body == "bad":
                raise Reject("the first reason")

        query = "&declare=false" if "?" in url else "?declare=false"
        async with (
            connect(url + query) as user,
            user.subscribe(topic, group="g", handler=handle, middleware=chain),
        ):
            logged = [r for r in caplog.records if where in r.getMessage()]
            assert logged, "a log line names the missing topic"
            await until(lambda: handled == ["bad"])
            await user.publish(topic, "good")
            await until(lambda: handled == ["bad", "good"])
            await broker.publish(where, "created by the operator")
            letters = broker.admin.dead_letters(topic, "g", stored_in=where)
            await eventually(
                lambda: letters.list(where=lambda item: item.reason == "the first reason"), bool
            )
        assert handled == ["bad", "good"]

    async def test_letters_that_are_damaged_do_not_block_others(
        self, broker: Broker, topic: str
    ) -> None:
        await reject(broker, topic, ["a", "b", "c"])
        letters = broker.admin.dead_letters(topic, "g")
        damages = {
            "anymq-dlq-history": ["[1]", "[" * 20_000, '{"a": 1}'],
            "anymq-dlq-attempts": ["9" * 5_000, "\u0663", "-"],
            "anymq-dlq-failed-at": ["9" * 5_000, "never", "+999999-01-01"],
        }
        for name, values in damages.items():
            for value in values:
                headers = {"anymq-dlq-topic": topic, "anymq-dlq-group": "g", name: value}
                await self._forge(broker, letters.topic, b"damaged", headers)
        assert len(await letters.list()) == 12
        assert await letters.count() == 12
        lines = [json.loads(line) async for line in letters.export()]
        assert sum(line["body"] == "damaged" for line in lines) == 9
        # The notes of the settlement log may be damaged, too.
        (first,) = await letters.list(where=lambda item: item.message.body == b"a")
        assert await letters.drop(first) == 1
        for note in (b"", b"{", b"7", b"[" * 100_000, b'[7, {"a": 1}]'):
            await self._forge(broker, f"{letters.topic}._settled", note, {})
        assert await letters.count() == 11
        assert await letters.redrive_all() == 11
        assert await letters.drop_all() == 0

    async def test_letters_of_another_topic_are_refused_before_anything_is_published(
        self, broker: Broker, topic: str
    ) -> None:
        other = f"{topic}-other"
        await reject(broker, topic, ["x"])
        await reject(broker, other, ["y"])
        letters = broker.admin.dead_letters(topic, "g")
        own, foreign = (
            await letters.list(),
            await broker.admin.dead_letters(other, "g").list(),
        )
        for refused in (letters.redrive(*own, *foreign), letters.drop(*own, *foreign)):
            with pytest.raises(StateError, match=other):
                await refused
        with pytest.raises(StateError, match=other):
            await letters.redrive_edited(foreign[0], "z")
        assert await letters.list() == own
        async with broker.subscribe(topic, group="g") as deliveries:
            await silent(deliveries, 0.5)

    async def test_letters_that_are_reduced_can_only_be_redriven_edited(
        self, broker: Broker, topic: str
    ) -> None:
        await reject(broker, topic, ["x"])
        letters = broker.admin.dead_letters(topic, "g")
        headers = {"anymq-dlq-topic": topic, "anymq-dlq-group": "g", "anymq-dlq-reduced": "body"}
        await self._forge(broker, letters.topic, b"", headers)
        (short,) = await letters.list(where=lambda item: bool(item.reduced))
        with pytest.raises(StateError, match="redrive_edited"):
            await letters.redrive(short)
        assert await letters.redrive_all() == 1
        await letters.redrive_edited(short, "edited")
        assert await letters.count() == 0
        async with broker.subscribe(topic, group="g") as deliveries:
            again = await take_acked(deliveries, 2)
        assert sorted(bodies(again)) == ["edited", "x"]

    async def _forge(
        self, broker: Broker, topic: str, body: bytes, headers: dict[str, str]
    ) -> None:
        record = Record(topic=topic, id=new_id(), unique=new_id(), body=body, headers=headers)
        (outcome,) = await broker.driver.publish([record])
        assert not isinstance(outcome, BaseException), outcome

    async def test_letters_of_an_ordered_group_are_redriven(
        self, broker: Broker, topic: str
    ) -> None:
        if not broker.capabilities.ordered:
            with pytest.raises(UnsupportedOperation):
                broker.subscribe(topic, group="g", ordered=True)
            return
        handled: list[str] = []

        async def handle(body: str) -> None:
            if body == "bad" and "bad" not in handled:
                handled.append(body)
                raise Reject("not yet")
            handled.append(body)

        async with broker.subscribe(topic, group="g", ordered=True, handler=handle):
            await broker.publish_many(topic, ["1", "bad", "2"], key="k")
            await until(lambda: len(handled) == 3)
            letters = broker.admin.dead_letters(topic, "g")
            await letters.redrive(await the_only(letters))
            await until(lambda: len(handled) == 4)
        assert handled == ["1", "bad", "2", "bad"]
