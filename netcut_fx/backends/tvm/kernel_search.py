"""The trials of one kernel: our own schedules in their order, or MetaSchedule's search where we have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.measuring import KernelTimer, Place, argument_infos, here
from netcut_fx.backends.tvm.neighbours import warm_order
from netcut_fx.backends.tvm.records import RecordWriter
from netcut_fx.backends.tvm.roofline import work_of
from netcut_fx.backends.tvm.schedules.candidates import candidates, scheduled
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import import_tvm, tvm_target
from netcut_fx.backends.tvm.trial_log import Trial, TrialLog
from netcut_fx.backends.tvm.tune_plan import Allowance, KernelProgress
from netcut_fx.backends.tvm.workload_kinds import workload_of
from netcut_fx.errors import DeviceLost
from netcut_fx.target import Target

#: Below this many trials a random sample of the design space beats an evolutionary search: nothing is learnt in time.
_EVOLUTION_FROM = 24
#: Kernels without a reduction worth tiling: their space is small.
_SMALL_SPACE_TRIALS = 6
#: MetaSchedule learns from so many trials at once.
_ROUND = 8
#: Our own schedules come best first, and those that follow each other differ by a few per cent in what they should
#: take: eight that bring nothing cover four shapes of tiles in both orders of loops. A random sample has no such order.
_OWN_PATIENCE, _SEARCH_PATIENCE = 8, 16


@dataclass(frozen=True)
class Workshop:
    """What the searches of all kernels share.

    Parameters
    ----------
    target : tvm.target.Target
        What is compiled for.
    machine : Machine or None
        The same for our own schedules; None where they do not fit: on GPUs.
    writer : RecordWriter
        Where records go.
    log : TrialLog
        Where trials go.
    cost_model : callable
        Gives the one cost model of MetaSchedule's searches; making it imports a learning library.
    begin : callable
        Called before each trial, with what it would be if it failed: it may take the process with it.
    place : callable
        Where schedules are timed.
    """

    target: Any
    machine: Machine | None
    writer: RecordWriter
    log: TrialLog
    cost_model: Callable[[], Any]
    begin: Callable[[Trial], None]
    place: Place = here


class KernelSearch:
    """Tries schedules of one kernel, one at a time.

    Parameters
    ----------
    task : tvm.s_tir.meta_schedule.ExtractedTask
        The kernel.
    shop : Workshop
        What it shares with others.
    trials : int
        At most, those of earlier runs included.
    seed : int
        Of MetaSchedule's search.
    """

    def __init__(self, task: Any, shop: Workshop, trials: int, seed: int) -> None:
        self._task = task
        self._shop = shop
        self._seed = seed
        self.module = task.dispatched[0]
        self.workload = workload_of(self.module)
        own = () if shop.machine is None else candidates(self.module["main"], shop.machine)
        self._own = {candidate.name: candidate for candidate in own}
        if self._own:
            allowance = Allowance(min(len(self._own), trials), _OWN_PATIENCE)
        elif has_reduction(self.module):
            allowance = Allowance(trials, _SEARCH_PATIENCE)
        else:
            allowance = Allowance(min(_SMALL_SPACE_TRIALS, trials), _SEARCH_PATIENCE)
        database = shop.writer.database
        recorded: list[float] = []
        if database.has_workload(self.module):
            found = database.get_top_k(shop.writer.workload(self.module), 1 << 30)
            recorded = [min(float(s) for s in record.run_secs) for record in found]
        tried = tried_seconds(shop.log.of(self.workload.name), recorded)
        self.progress = KernelProgress(
            str(task.task_name), int(task.weight), work_of(self.module), allowance, tried, naive=not self._own
        )
        self._timer = KernelTimer(self.module, shop.target, self.progress.best_s, shop.place)
        self._steps = self._own_steps() if self._own else self._search_steps()

    def step(self) -> Trial | None:
        """Make the next trial; None if there is no further schedule."""
        trial = next(self._steps, None)
        self.progress.exhausted = trial is None
        return trial

    def _own_steps(self) -> Iterator[Trial]:
        from tvm.s_tir import meta_schedule as ms

        infos = argument_infos(self.module)
        while True:
            tried = {trial.plan for trial in self._shop.log.of(self.workload.name)}
            # Asked anew each time: neighbours learn as well.
            order = warm_order(tuple(self._own), self.workload, self._shop.log.by_workload())
            plan = next((name for name in order if name not in tried), None)
            if plan is None:
                return
            yield self._try(plan, lambda p=plan: ms.MeasureCandidate(scheduled(self.module, self._own[p]), infos))

    def _search_steps(self) -> Iterator[Trial]:
        from tvm.s_tir import meta_schedule as ms

        trials = self.progress.allowance.trials - len(self.progress.tried)
        evolve = trials >= _EVOLUTION_FROM
        cost_model = self._shop.cost_model() if evolve else None
        strategy = (
            ms.search_strategy.EvolutionarySearch(population_size=64, genetic_num_iters=3, init_min_unmeasured=16)
            if evolve
            else ms.search_strategy.ReplayTrace()
        )
        context = ms.TuneContext(
            mod=self.module,
            target=self._shop.target,
            space_generator=design_space(self._shop.machine),
            search_strategy=strategy,
            task_name=self.progress.name,
            rand_state=self._seed,
            num_threads=1,
        )
        self._shop.writer.workload(self.module)
        context.pre_tuning(
            max_trials=trials,
            num_trials_per_iter=_ROUND,
            design_spaces=context.space_generator.generate_design_space(context.mod),
            database=self._shop.writer.database,
            cost_model=cost_model,
        )
        while found := context.generate_measure_candidates():
            results: list[Any] = []
            for candidate in found:
                trial = self._try(None, lambda c=candidate: c)
                results.append(
                    ms.runner.RunnerResult(None, "failed")
                    if trial.seconds is None
                    else ms.runner.RunnerResult([trial.seconds], None)
                )
                yield trial
            if cost_model is not None:
                cost_model.update(context, found, results)
            context.search_strategy.notify_runner_results(found, results)

    def _try(self, plan: str | None, make: Callable[[], Any]) -> Trial:
        """Build and time one candidate, and write down at once what came of it."""
        from tvm.s_tir import meta_schedule as ms

        shop = self._shop
        failed = Trial(self.workload, plan, None)
        shop.begin(failed)
        try:
            candidate = make()
            trial = Trial(self.workload, plan, self._timer.seconds(candidate))
        except DeviceLost:
            raise
        except Exception:  # any failure of a candidate only loses the trial
            trial = failed
        else:
            # What failed is no record: the best record of a workload is applied without asking again. What is slower
            # than the best so far is recorded unchecked, as it is never applied.
            workload = shop.writer.workload(self.module)
            trace, seconds = candidate.sch.trace, [trial.seconds]
            shop.writer.add(ms.database.TuningRecord(trace, workload, seconds, shop.target, candidate.args_info))
        # After the record: a process killed between the two repeats a trial, where the other order would lose one.
        shop.log.add(trial)
        self.progress.tried.append(trial.seconds)
        return trial


def extracted_tasks(module: Any, target: Target) -> list[Any]:
    """The distinct kernels of a network, with how often it calls each."""
    import_tvm()
    from tvm.s_tir import meta_schedule as ms

    return sorted(ms.relax_integration.extract_tasks(module, tvm_target(target)), key=lambda task: str(task.task_name))


def tried_seconds(trials: list[Trial], recorded: list[float]) -> list[float | None]:
    """Seconds of all trials of a workload in order: those of the log, and before them records that it does not know."""
    logged = [trial.seconds for trial in trials]
    unknown = len(recorded) - sum(seconds is not None for seconds in logged)
    return [*sorted(recorded)[: max(0, unknown)], *logged]


def has_reduction(module: Any) -> bool:
    """Whether some block of the kernel reduces: convolutions, matrix products, pooling."""
    return "T.init()" in module.script() or ".init()" in module.script()


def design_space(machine: Machine | None) -> Any:
    """MetaSchedule's schedules for a CPU, without parallel loops where there is one thread, or for a GPU."""
    import_tvm()
    from tvm.s_tir import meta_schedule as ms

    if machine is None:
        # All three, or those of tensor cores are asked for, whose intrinsics are not loaded.
        return ms.space_generator.PostOrderApply(sch_rules="cuda", postprocs="cuda", mutator_probs="cuda")
    rules = list(ms.ScheduleRule.create("llvm"))
    if machine.threads == 1:
        parallel = ms.schedule_rule.ParallelizeVectorizeUnroll
        serial = parallel(
            max_jobs_per_core=-1, max_vectorize_extent=64, unroll_max_steps=[0, 16, 64, 512], unroll_explicit=True
        )
        rules = [serial if isinstance(rule, parallel) else rule for rule in rules]
    return ms.space_generator.PostOrderApply(sch_rules=rules)
