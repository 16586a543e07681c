"""The best network known for each deadline is delivered; one that cannot be is replaced by the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from netcut_fx.evaluate import Accuracy
from netcut_fx.exploration.executors import Done, Inline
from netcut_fx.exploration.explore import prepared
from netcut_fx.exploration.explorer import Explorer
from netcut_fx.exploration.facts import Key
from netcut_fx.exploration.network_spec import parse_network
from netcut_fx.exploration.options import Strategy
from netcut_fx.exploration.outcome import outcome_of
from netcut_fx.exploration.strategies import choose
from netcut_fx.exploration.tasks import Answer, Task
from tests.small_exploration import PLAIN, RESIDUAL, SIZE, options
from tests.small_run import DATA, Listener


class Shipping(Inline):
    """Delivers everything but `broken` by noting it; all other steps are done really."""

    def __init__(self) -> None:
        self.broken: set[Key] = set()
        self.asked: list[tuple[Key, float]] = []

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        for task in tasks:
            if task.kind != "deliver":
                super().run([task], done)
                continue
            key = (task.network.name, task.cut)
            assert task.promise is not None
            assert task.promise.measured.ms <= task.promise.deadline_ms
            self.asked.append((key, task.promise.deadline_ms))
            value = {"bundle": f"bundles/{task.cut}", "notes": [f"{task.cut} has a note"]}
            done(task, Answer(None, "wrong answers") if key in self.broken else Answer(value))


def searched(folder: Path, listener: Listener, *strategies: Strategy) -> tuple[Explorer, Shipping]:
    explorer = prepared(
        [parse_network(PLAIN), parse_network(RESIDUAL)],
        DATA,
        folder,
        options(sweep=4, strategies=strategies or ("ranked",)),
        input_size=SIZE,
        timings=None,
        backend="eager",
        reporter=listener,
    )
    explorer.clock = clock = Shipping()
    explorer.survey()
    explorer.time()
    explorer.search()
    return explorer, clock


def winners(explorer: Explorer) -> list[tuple[Key, float, str | None]]:
    found: list[tuple[Key, float, str | None]] = []
    for deadline in outcome_of(explorer)["deadlines"]:
        best = deadline["best_known"]
        if best["winner"] is not None:
            key = (best["winner"]["network"], best["winner"]["cut"])
            found.append((key, deadline["deadline_ms"], best["bundle"]))
    return found


def test_each_winner_is_delivered_once_for_the_shortest_deadline_it_won(tmp_path: Path) -> None:
    listener = Listener()
    explorer, clock = searched(tmp_path, listener)
    explorer.deliver()
    won = winners(explorer)
    assert won
    shortest = {key: min(ms for k, ms, _ in won if k == key) for key, _, _ in won}
    assert dict(clock.asked) == shortest
    assert len(clock.asked) == len(shortest)
    assert all(bundle == f"bundles/{key[1]}" for key, _, bundle in won)
    assert all(f"{cut} has a note" in listener.notes for _, cut in shortest)


def test_a_winner_that_cannot_be_delivered_is_replaced_by_the_next(tmp_path: Path) -> None:
    listener = Listener()
    explorer, clock = searched(tmp_path, listener)
    first = winners(explorer)[-1][0]
    clock.broken.add(first)
    explorer.deliver()
    won = winners(explorer)
    assert won
    assert first not in {key for key, _, _ in won}
    assert all(bundle is not None for _, _, bundle in won)
    assert any(note.startswith("deliver ") and "wrong answers" in note for note in listener.notes)
    assert all(explorer.facts.measured[key].ms <= ms for key, ms, _ in won)


def test_what_broke_its_deadline_is_not_delivered(tmp_path: Path) -> None:
    explorer, clock = searched(tmp_path, Listener(), "netcut")
    assert winners(explorer)
    for key, measured in explorer.facts.measured.items():
        explorer.facts.measured[key] = replace(measured, ms=1000 * measured.ms, high_ms=1000 * measured.high_ms)
    explorer.deliver()
    assert (winners(explorer), clock.asked) == ([], [])


def test_what_was_retrained_for_another_deadline_is_delivered_where_it_is_better(tmp_path: Path) -> None:
    explorer, _ = searched(tmp_path, Listener())
    longest = max(explorer.deadlines_ms)
    chosen = choose("ranked", explorer.facts, longest, 1).winner
    other = next(k for k in explorer.facts.trained if k != chosen and k in explorer.facts.measured)
    trained = explorer.facts.trained[other]
    total = trained.validation.total
    for key in explorer.facts.trained:
        right = total if key == other else 0
        explorer.facts.trained[key] = replace(explorer.facts.trained[key], validation=Accuracy(right, total))
    assert explorer.facts.measured[other].ms <= longest
    assert winners(explorer)[-1][0] == other
    assert choose("ranked", explorer.facts, longest, 1).winner == chosen
