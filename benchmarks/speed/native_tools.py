"""The brokers' own tools, which take their turns in the rounds though they are no contestants."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from brokers import BrokersError

from .contestants.native import Native, ToolFailed, natives
from .environment import Environment
from .results import Cell, LeftOut, Sample
from .workloads import Workload

ROUNDS = 3
SECONDS = 1.0
LEAST = 20_000
"""Messages: a virtual machine has to get warm."""
COMPARED = {"publish-many": "publish", "consume": "consume"}
"""The workloads that they are comparable with, and what they do for each."""


@dataclass
class Tool:
    """One tool, and its cells by what it does."""

    native: Native
    cells: dict[str, Cell]
    workload: Workload
    count: int = LEAST

    def size(self, speeds: Iterable[float]) -> None:
        """Choose how many messages it gets, from how fast the contestants are."""
        fastest = max(speeds, default=0.0)
        self.count = min(self.workload.max_messages, max(LEAST, int(fastest * SECONDS)))


async def tools(
    environment: Environment, workloads: Sequence[Workload], left_out: list[LeftOut]
) -> list[Tool]:
    """Install the tools of this backend, where they have a part in `workloads`."""
    found: list[Tool] = []
    comparable = [workload for workload in workloads if workload.name in COMPARED]
    for kind in natives(environment.target.backend) if comparable else ():
        what = f"{kind.backend}: {kind.name}"
        if missing := kind.missing():
            left_out.append(LeftOut(what=what, why=f"needs {missing}"))
            continue
        native = kind()
        try:
            await asyncio.to_thread(native.install)
        except (BrokersError, OSError) as error:
            left_out.append(LeftOut(what=what, why=str(error)))
            continue
        cells = {COMPARED[workload.name]: _cell(kind, workload) for workload in comparable}
        found.append(Tool(native, cells, comparable[0]))
    return found


async def measure(environment: Environment, tool: Tool, round: int) -> None:
    """Let it publish and consume once; what fails is noted in the cells."""
    topic = environment.new_topic(tool.workload)
    doing = "publish"
    try:
        await tool.native.prepare(topic)
        rate = await tool.native.publish(topic, count=tool.count, size=tool.workload.size)
        _note(tool, doing, rate, round)
        doing = "consume"
        if doing in tool.cells:
            rate = await tool.native.consume(topic, count=tool.count)
            _note(tool, doing, rate, round)
    except (ToolFailed, OSError) as error:
        if doing in tool.cells:
            tool.cells[doing].failures.append(str(error))
    finally:
        await environment.delete_topic(topic)


def _note(tool: Tool, doing: str, rate: float | None, round: int) -> None:
    if rate is not None and doing in tool.cells:
        sample = Sample(round=round, rate=rate, messages=tool.count)
        tool.cells[doing].samples.append(sample)


def _cell(kind: type[Native], workload: Workload) -> Cell:
    return Cell(
        backend=kind.backend,
        workload=workload.name,
        contestant=kind.name,
        durability=kind.durability,
        how=f"{kind.how}; the rate is what the tool itself says",
    )
