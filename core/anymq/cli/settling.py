"""Many dead letters redriven, dropped or imported by one command, with a progress bar."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from ..broker import Broker
from ..operating.dead_letters import DeadLetters, Progress
from ..operating.letter import Letter
from ..topic import BROADCAST
from .impact import plural
from .letters import Selection, Tally, select
from .output import Output

Work = Callable[[DeadLetters, list[Letter], Progress], Awaitable[object]]
"""Settles letters, all of one group, and reports the progress."""


@dataclass(kw_only=True)
class Chosen:
    """The letters that a command settles, by group."""

    groups: list[tuple[DeadLetters, list[Letter]]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    is_all: bool = True
    """Whether a limit excluded none."""
    reduced: int = 0
    """How many were left out because they are without their body or headers."""

    @classmethod
    async def of(
        cls, broker: Broker, selection: Selection, *, limit: int | None, reduced: bool = True
    ) -> Chosen:
        """Return the letters of `selection`, to `limit`; without `reduced` only whole ones."""
        chosen = cls()
        sources = await selection.find(broker)
        async with aclosing(select(sources, selection.where)) as found:
            async for source, letter in found:
                if letter.reduced and not reduced:
                    chosen.reduced += 1
                elif limit is not None and chosen.tally.total >= limit:
                    chosen.is_all = False
                    break
                else:
                    chosen.add(source, letter)
        return chosen

    def add(self, source: DeadLetters, letter: Letter) -> None:
        """Add a letter; those of one group come together."""
        if not self.groups or self.groups[-1][0] is not source:
            self.groups.append((source, []))
        self.groups[-1][1].append(letter)
        self.tally.add(letter)

    def __str__(self) -> str:
        names = [f"{topic} ({group or BROADCAST})" for topic, group in self._origins()]
        if len(names) == 1:
            return f"{plural(self.tally.total, 'letter')} of {names[0]}"
        parts = [
            f"{len(letters):,} of {name}"
            for name, (_, letters) in zip(names, self.groups, strict=True)
        ]
        more = f", and of {len(parts) - 3} more groups" if len(parts) > 3 else ""
        of = f": {', '.join(parts[:3])}{more}" if parts else ""
        return f"{plural(self.tally.total, 'letter')}{of}"

    def _origins(self) -> list[tuple[str, str | None]]:
        return [source.origin for source, _ in self.groups]


class Settling:
    """One command that settles letters; `done` is what became of them, such as `redriven`."""

    def __init__(self, done: str, doing: str, chosen: Chosen, output: Output) -> None:
        self._done = done
        self._doing = doing
        self._chosen = chosen
        self._output = output
        self.count = 0
        """The number of letters settled so far."""

    async def run(self, work: Work) -> None:
        """Do `work` for each group. If it fails or is interrupted, say how far it came."""
        total = self._chosen.tally.total
        bar = self._output.progress(self._doing, total)

        def advance(count: int) -> None:
            self.count += count
            bar.advance(bar.task_ids[0], count)

        try:
            with bar:
                for source, letters in self._chosen.groups:
                    await work(source, letters, advance)
        except BaseException:
            if total:
                self._output.note(f"{self.count:,} of {plural(total, 'letter')} {self._done}")
            raise

    def report(self, *, dry_run: bool, **others: int) -> None:
        """Write the result: what was done, or what would be, and the numbers of `others`."""
        chosen, output = self._chosen, self._output
        data = {
            "letters": chosen.tally.total if dry_run else self.count,
            **others,
            "dry_run": dry_run,
            "kinds": chosen.tally.as_list(),
        }
        text = f"{'would be ' if dry_run else ''}{self._done}: {chosen}"
        output.result(self._done, data, text)
        if dry_run and chosen.tally.total and not output.as_json:
            output.write("")
            chosen.tally.write(output)
