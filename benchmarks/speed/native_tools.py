"""Rounds of the brokers' own tools, which are measured beside the contestants."""

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
"""Fewest messages, because a virtual machine needs a warm-up."""
COMPARED = {"publish-many": "publish", "consume": "consume"}
"""Step of a tool, by the workload it is compared with."""


@dataclass
class Tool:
    """One tool, with a result cell for each of its steps."""

    native: Native
    cells: dict[str, Cell]
    workload: Workload
    count: int = LEAST

    def size(self, speeds: Iterable[float]) -> None:
        """Choose the message count from the rates of the contestants."""
        fastest = max(speeds, default=0.0)
        self.count = min(self.workload.max_messages, max(LEAST, int(fastest * SECONDS)))


async def tools(
    environment: Environment, workloads: Sequence[Workload], left_out: list[LeftOut]
) -> list[Tool]:
    """Install and return the tools of this backend that are comparable in `workloads`."""
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
    """Run the tool's publish and consume steps once; failures are recorded in its cells."""
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
        how=f"{kind.how}; the rate is the one that the tool reports",
    )
