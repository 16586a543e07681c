"""The exploration: survey all networks, time them on the target, then retrain and measure what the strategies want."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cost_models import LatencyEstimate
from netcut_fx.errors import DeadlineUnmet, NetcutError
from netcut_fx.evaluate import Accuracy
from netcut_fx.exploration.deadlines import sweep_of
from netcut_fx.exploration.executors import Executor
from netcut_fx.exploration.facts import Candidate, Facts, Failure, Key, Trained
from netcut_fx.exploration.network_spec import NetworkSpec
from netcut_fx.exploration.options import ExploreOptions
from netcut_fx.exploration.strategies import Steps, best_known, next_steps
from netcut_fx.exploration.tasks import Answer, Kind, Promise, Setting, Task
from netcut_fx.job_values import Reporter
from netcut_fx.measure import Measurement

_Take = Callable[[Task, dict[str, Any]], None]


class Explorer:
    """One exploration. What it learns is in `facts`; the rows of all steps, as they were answered, in `rows`.

    Parameters
    ----------
    networks : sequence of NetworkSpec
        Of different names.
    setting : Setting
        What all steps share.
    options : ExploreOptions
        What is asked.
    executor : Executor
        For what may run anywhere.
    clock : Executor
        For what is timed: on the target, one at a time.
    reporter : Reporter
        Hears of progress and failures.
    """

    def __init__(
        self,
        networks: Sequence[NetworkSpec],
        setting: Setting,
        options: ExploreOptions,
        executor: Executor,
        clock: Executor,
        reporter: Reporter,
    ) -> None:
        self.networks = {n.name: n for n in networks}
        self.setting, self.options = setting, options
        self.executor, self.clock, self.reporter = executor, clock, reporter
        self.facts = Facts()
        self.rows: dict[tuple[Kind, str, str], dict[str, Any]] = {}
        self.deadlines_ms: tuple[float, ...] = ()
        self.teacher: Key | None = None

    def survey(self) -> None:
        """Frontiers of all networks, and what their frozen features can tell."""
        self._do("survey", [(name, "") for name in self.networks], self._take_survey)
        self._require_some("survey")

    def time(self) -> None:
        """Tune and profile all uncut networks, and predict all cuts."""
        self._do("time", [(name, "") for name in self._alive()], self._take_time)
        self._require_some("time")
        self.deadlines_ms = self.options.deadlines_ms or sweep_of(self.facts, self.options.sweep)

    def search(self) -> None:
        """Measure and retrain until no strategy wants to know more.

        Raises
        ------
        DeadlineUnmet
            If nothing meets even the longest deadline.
        """
        self._refuse_hopeless()
        uncut = [c.key for c in self.facts.usable() if c.uncut]
        if self.options.off_the_shelf:
            self._train(uncut)
            self._measure([k for k in uncut if k not in self.facts.measured])
        if self.options.distillation:
            trained = [k for k in uncut if k in self.facts.trained]
            self.teacher = max(trained, key=lambda k: self.facts.trained[k].validation.value, default=None)
        while True:
            # What is measured decides what is worth training.
            self.measure_wanted()
            wanted = self._wanted()
            if not wanted.measure and not wanted.train:
                return
            self._train(wanted.train)

    def deliver(self) -> None:
        """Write the best network known for each deadline as a bundle, each network once.

        One that cannot be delivered has failed; the search goes on without it.
        """
        promises: dict[Key, Promise] = {}
        for deadline_ms in sorted(self.deadlines_ms):
            best = best_known(self.facts, deadline_ms)
            if best is not None and best not in promises:
                promises[best] = Promise(deadline_ms, self.facts.estimates[best], self.facts.measured[best])
        before = len(self.facts.failures)
        self._do("deliver", list(promises), self._take_deliver, promises)
        if len(self.facts.failures) > before:
            self.search()
            self.deliver()

    def measure_wanted(self) -> None:
        """Measure what the strategies want to know, as far as they can tell before anything more is trained."""
        while (wanted := self._wanted()).measure:
            self._measure(wanted.measure)

    def train_without_clock(self, keys: Sequence[Key]) -> None:
        """Retrain what is sure to be needed, before anything is timed."""
        self._train([k for k in keys if k not in self.facts.trained])

    def measure_all(self, keys: Sequence[Key]) -> None:
        """Compile and time `keys`, whatever the strategies want."""
        self._measure([k for k in keys if k not in self.facts.measured])

    def _wanted(self) -> Steps:
        """What the strategies want to know next about any deadline, each thing once."""
        shortlist = self.options.each.shortlist
        wanted = [next_steps(s, self.facts, ms, shortlist) for s in self.options.strategies for ms in self.deadlines_ms]
        return Steps(
            tuple(dict.fromkeys(k for steps in wanted for k in steps.measure)),
            tuple(dict.fromkeys(k for steps in wanted for k in steps.train)),
        )

    def _alive(self) -> list[str]:
        return list(dict.fromkeys(c.network for c in self.facts.usable()))

    def _train(self, keys: Sequence[Key]) -> None:
        # A large network that comes last would keep one worker busy while the others wait.
        candidates = self.facts.candidates
        missing = [k for k in keys if k not in self.facts.trained]
        self._do("train", sorted(missing, key=lambda k: -candidates[k].kept_flops), self._take_train)

    def _measure(self, keys: Sequence[Key]) -> None:
        self._do("measure", list(keys), self._take_measure)

    def _do(self, kind: Kind, keys: Sequence[Key], take: _Take, promises: Mapping[Key, Promise] | None = None) -> None:
        if not keys:
            return
        self.reporter.stage(f"{kind} {len(keys)} {'networks' if kind in ('survey', 'time') else 'candidates'}")
        finished = 0

        def done(task: Task, answer: Answer) -> None:
            nonlocal finished
            finished += 1
            if answer.value is None:
                failure = Failure(task.network.name, task.cut, kind, answer.error)
                self.facts.failures.append(failure)
                self.reporter.note(f"{task} failed, the others go on: {answer.error}")
            else:
                self.rows[kind, task.network.name, task.cut] = answer.value
                take(task, answer.value)
            self.reporter.progress(finished, len(keys), str(task))

        tasks = [
            Task(
                kind,
                self.networks[network],
                self.setting,
                cut,
                self._teacher_of((network, cut)) if kind in ("train", "deliver") else None,
                (promises or {}).get((network, cut)),
            )
            for network, cut in keys
        ]
        (self.executor if kind in ("survey", "train") else self.clock).run(tasks, done)

    def _teacher_of(self, key: Key) -> NetworkSpec | None:
        """Who taught the cut; uncut networks, trained before there was a teacher, learned from labels alone."""
        if self.teacher is None or self.facts.candidates[key].uncut:
            return None
        return self.networks[self.teacher[0]]

    def _take_survey(self, task: Task, value: dict[str, Any]) -> None:
        for cut in value["cuts"]:
            quick = Accuracy.from_json(cut["quick"])
            found = Candidate(
                task.network.name, cut["name"], cut["uncut"], cut["kept_flops"], cut["kept_params"], quick
            )
            self.facts.candidates[found.key] = found

    def _take_time(self, task: Task, value: dict[str, Any]) -> None:
        name = task.network.name
        for cut, row in value["estimates"].items():
            self.facts.estimates[name, cut] = (
                LatencyEstimate.unknown(*row["missing"])
                if "missing" in row
                else LatencyEstimate(row["ms"], row["low_ms"], row["high_ms"], tuple(row["provenance"].items()))
            )
        self.facts.measured[name, value["uncut"]["cut"]] = Measurement.from_json(value["uncut"]["measured"])

    def _take_train(self, task: Task, value: dict[str, Any]) -> None:
        self.facts.trained[task.network.name, task.cut] = Trained.from_json(value)

    def _take_measure(self, task: Task, value: dict[str, Any]) -> None:
        self.facts.measured[task.network.name, task.cut] = Measurement.from_json(value["measured"])

    def _take_deliver(self, task: Task, value: dict[str, Any]) -> None:
        for note in value["notes"]:
            self.reporter.note(note)

    def _require_some(self, step: str) -> None:
        if not self._alive():
            first = self.facts.failures[0]
            raise NetcutError(
                f"all {len(self.networks)} networks failed in step '{step}' or before; the first, {first.network}: "
                f"{first.message}"
            )

    def _refuse_hopeless(self) -> None:
        """No network meets any of the deadlines: say what is reachable."""
        known = {k: e for k, e in self.facts.estimates.items() if e.is_known and k[0] in self._alive()}
        if any(e.meets(max(self.deadlines_ms)) for e in known.values()):
            return
        if not known:
            raise DeadlineUnmet(
                f"no cut of the {len(self._alive())} networks has a known latency; simplify the operations that "
                "netcut estimate names, or explore other networks"
            )
        (network, cut), best = min(known.items(), key=lambda item: item[1].ms)
        raise DeadlineUnmet(
            f"no network meets {max(self.deadlines_ms):g} ms: the fastest, {network} cut at {cut}, is predicted to "
            f"take {best.ms:.3f} ms; allow at least that, or add smaller networks"
        )
