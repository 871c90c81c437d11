"""Which copies of a batch ride where: edits that have done the same so far share their rows.

Every edit is a row of steps, one at the residual stream after each layer (-1: before block 0) and one inside each block. All
edits begin as the intact rows; where some do a thing that others don't, they leave as a copy of their own. So the copies of a
batch are a tree whose trunk is the intact rows, and a block runs once for each branch that passes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clsinterp.interventions import TokenEdit
from clsinterp.models.layers import EMBEDDINGS
from clsinterp.sweeps.cuts import Cut

INTACT = 0  # the number of the untouched copy; edit k of the list is copy k + 1


@dataclass(frozen=True)
class Edit:
    """What happens to one copy of the batch.

    Attributes:
        at: layer (-1: before block 0) -> function of the copy's residual stream there, which may edit in place. Edits that have
            the very same function at a layer, and everything before alike, share their rows, and it is called once for them.
        until: the layer after which the copy leaves; None: it rides to the read-out.
        cuts: block -> who may not read whom in its attention.
    """

    at: Mapping[int, TokenEdit] = field(default_factory=dict)
    until: int | None = None
    cuts: Mapping[int, Cut] = field(default_factory=dict)

    def leaves(self, layer: int) -> bool:
        """Whether the copy is gone after `layer`."""
        return self.until is not None and self.until <= layer


@dataclass(frozen=True)
class Branch:
    """Rows that ride as one.

    Attributes:
        source: number of the branch they were until now.
        members: the copies they stand for.
        step: what is done to them next; None for nothing.
    """

    source: int
    members: tuple[int, ...]
    step: Any = None


@dataclass(frozen=True)
class Stop:
    """What happens to the rows at one layer: they are edited, some leave, and then they divide for the next block.

    Attributes:
        edited: branches of the rows that arrive; `step` is a function of the residual stream.
        riding: branches of `edited` that go on; `step` is the next block's `Cut`.
    """

    edited: tuple[Branch, ...]
    riding: tuple[Branch, ...]

    @property
    def touched(self) -> bool:
        """Whether the rows that go on are other than those that arrived."""
        same = [b.source for b in self.riding] == list(range(len(self.edited)))
        return not same or len(self.edited) != len({b.source for b in self.edited}) or any(b.step for b in self.edited)


def plan(edits: Mapping[int, Edit], n_layers: int) -> dict[int, Stop]:
    """Layer -> what happens there, for copies `edits` and the intact one, which is always the first branch."""
    stops = {}
    aboard = [Branch(0, (INTACT, *edits))]
    for layer in range(EMBEDDINGS, n_layers):
        edited = _divided(aboard, {k: edit.at[layer] for k, edit in edits.items() if layer in edit.at})
        stay = [
            (i, tuple(k for k in b.members if k == INTACT or not edits[k].leaves(layer))) for i, b in enumerate(edited)
        ]
        left = [Branch(i, members) for i, members in stay if members]
        divided = _divided(left, {k: edit.cuts[layer + 1] for k, edit in edits.items() if layer + 1 in edit.cuts})
        aboard = [Branch(left[b.source].source, b.members, b.step) for b in divided]
        stops[layer] = Stop(tuple(edited), tuple(aboard))
    return stops


PlainBranch = tuple[int, tuple[int, ...], Any]  # source, members, step
PlainStop = tuple[tuple[PlainBranch, ...], tuple[PlainBranch, ...], bool]  # edited, riding, touched


def plain_plan(edits: Mapping[int, Edit], n_layers: int) -> dict[int, PlainStop]:
    """`plan` in tuples, cuts too: what travels to a server as source must not hold dataclasses."""
    return {
        layer: (
            tuple((b.source, b.members, b.step) for b in stop.edited),
            tuple((b.source, b.members, b.step and b.step.plain) for b in stop.riding),
            stop.touched,
        )
        for layer, stop in plan(edits, n_layers).items()
    }


def _divided(branches: Sequence[Branch], steps: Mapping[int, Any]) -> list[Branch]:
    """`branches` taken apart by what their members do next; those that do nothing come first."""
    out = []
    for i, branch in enumerate(branches):
        groups: list[tuple[Any, list[int]]] = [(None, [k for k in branch.members if k not in steps])]
        for k in branch.members:
            if k in steps:
                for step, members in groups[1:]:
                    if step is steps[k] or (isinstance(step, Cut) and step == steps[k]):
                        members.append(k)
                        break
                else:
                    groups.append((steps[k], [k]))
        out += [Branch(i, tuple(members), step) for step, members in groups if members]
    return out


def rides(edits: Sequence[Edit], n_layers: int, at_once: int) -> Iterator[dict[int, Edit]]:
    """The copies by number, in groups of which no more than `at_once` branches ride beside the intact rows at any layer."""
    group: dict[int, Edit] = {}
    for k, edit in enumerate(edits, start=1):
        more = {**group, k: edit}
        if group and _most(plan(more, n_layers)) > at_once + 1:
            yield group
            more = {k: edit}
        group = more
    yield group


def _most(stops: Mapping[int, Stop]) -> int:
    return max(max(len(stop.edited), len(stop.riding)) for stop in stops.values())


def block_passes(edits: Sequence[Edit], n_layers: int, at_once: int) -> tuple[int, int]:
    """How many blocks one image goes through under `edits`, as they share rows and with a forward for each.

    Both count one intact pass; the first counts another for every further group of `rides`.

    Example:
        >>> block_passes([Edit({1: abs}), Edit({2: abs})], n_layers=4, at_once=16)
        (7, 12)
    """
    shared = sum(
        len(stops[layer].riding)
        for group in rides(edits, n_layers, at_once)
        for stops in [plan(group, n_layers)]
        for layer in range(EMBEDDINGS, n_layers - 1)
    )
    alone = [n_layers if edit.until is None else min(edit.until + 1, n_layers) for edit in edits]
    return shared, n_layers + sum(alone)
