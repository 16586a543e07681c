"""Where trials go, when a kernel is finished, and what a new workload learns from its neighbours."""

from __future__ import annotations

import math

import pytest

from netcut_fx.backends.tvm.kernel_search import tried_seconds
from netcut_fx.backends.tvm.neighbours import distance, warm_order
from netcut_fx.backends.tvm.roofline import MachinePeak, Work
from netcut_fx.backends.tvm.trial_log import Trial, Workload
from netcut_fx.backends.tvm.tune import time_left
from netcut_fx.backends.tvm.tune_plan import Allowance, KernelProgress, network_seconds, next_kernel, set_bounds

#: 100 operations or 10 bytes a second.
PEAK = MachinePeak(100.0, 10.0)


def kernel(name: str, *tried: float | None, calls: int = 1, flops: float = 100.0, trials: int = 8) -> KernelProgress:
    return KernelProgress(name, calls, Work(flops, 1), Allowance(trials, 4), list(tried))


def chosen(*kernels: KernelProgress, peak: MachinePeak = PEAK) -> str | None:
    set_bounds(kernels, peak)
    found = next_kernel(kernels)
    return None if found is None else found.name


def test_every_kernel_gets_one_trial_first_and_the_one_with_most_work_leads() -> None:
    assert chosen(kernel("tried", 50.0), kernel("small"), kernel("large", flops=300.0)) == "large"
    assert chosen(kernel("tried", 50.0), kernel("small"), kernel("often", calls=4)) == "often"


def test_a_kernel_that_runs_as_naive_loops_gets_its_schedule_before_all_others() -> None:
    naive = kernel("naive", flops=1.0)
    naive.naive = True
    assert chosen(kernel("large", flops=300.0), naive) == "naive"
    naive.tried.append(5.0)
    assert chosen(kernel("large", flops=300.0), naive) == "large"


def test_trials_go_where_the_network_can_win_most() -> None:
    near, far = kernel("near", 1.5), kernel("far", 3.0)
    assert chosen(near, far) == "far"
    assert chosen(kernel("near", 1.5, calls=10), far) == "near"


def test_trials_that_bring_nothing_make_way_for_others() -> None:
    assert chosen(kernel("stubborn", 3.0, 3.0, 3.1, None), kernel("other", 2.0)) == "other"
    improved = kernel("improved", 9.0, 3.0)
    assert improved.fruitless == 0
    # Less than the timings can tell is no improvement.
    assert kernel("same", 3.0, 2.99).fruitless == 1


@pytest.mark.parametrize(
    ("tried", "reason"),
    [
        ((9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0), "all trials made"),
        ((3.0, None, 1.02), "at the machine's peak"),
        ((1.02, 3.0), None),
        ((3.0, 3.0, None, 3.5, 4.0), "the last 4 trials brought nothing"),
        ((None, None, None, None), "the last 4 trials brought nothing"),
        ((3.0, 3.0, 3.0, 3.0, 2.0), None),
    ],
)
def test_a_finished_kernel_says_why(tried: tuple[float | None, ...], reason: str | None) -> None:
    one = kernel("one", *tried)
    set_bounds([one], PEAK)
    assert one.finished == reason
    assert one.left == (0 if reason else 8 - len(tried))
    assert next_kernel([one]) is (None if reason else one)


def test_a_kernel_without_further_schedules_is_finished() -> None:
    one = kernel("one")
    one.exhausted = True
    assert (one.finished, next_kernel([one])) == ("no further schedule", None)


def test_a_kernel_faster_than_the_peak_raises_it_for_all() -> None:
    """A busy machine measures too low a peak, and would end kernels that have much to win."""
    slow, fast = kernel("slow", 1.0), kernel("fast", 0.5)
    set_bounds([slow, fast], PEAK)
    assert slow.least_s == fast.least_s == 0.5
    assert slow.finished is None


def test_the_sum_of_a_network_is_unknown_while_a_kernel_is() -> None:
    assert network_seconds([kernel("a", 2.0, 1.0, calls=3), kernel("b", 4.0)]) == 7.0
    assert network_seconds([kernel("a", 2.0), kernel("b", None)]) is None


def test_records_that_no_log_knows_count_as_trials() -> None:
    at = Workload("w")
    assert tried_seconds([], [2.0, 1.0]) == [1.0, 2.0]
    assert tried_seconds([Trial(at, "a", 3.0), Trial(at, "b", None)], [3.0, 1.0]) == [1.0, 3.0, None]


def test_the_time_that_is_left_is_bounded_by_trials_and_by_the_deadline() -> None:
    assert time_left(0.0, 0, 10, None, now_s=5.0) == ""
    assert time_left(20.0, 10, 20, None, now_s=5.0) == "at most 40 s left"
    assert time_left(20.0, 10, 20, 15.0, now_s=5.0) == "at most 10 s left"
    assert time_left(600.0, 10, 100, 14405.0, now_s=5.0) == "at most 100 min left"


def dense(name: str, rows: int, channels: int = 64) -> Workload:
    return Workload(name, "dense", {"rows": rows, "channels": channels})


def trials(at: Workload, **seconds: float | None) -> dict[str, list[Trial]]:
    return {at.name: [Trial(at, plan, value) for plan, value in seconds.items()]}


def test_distance_counts_doublings_within_a_kind() -> None:
    assert distance(dense("a", 7), dense("b", 28, 32)) == 3.0
    assert distance(dense("a", 7), Workload("b", "depthwise", {"rows": 7, "channels": 64})) == math.inf
    assert distance(dense("a", 7), Workload("b", "dense", {"rows": 7})) == math.inf


def test_the_best_plans_of_the_nearest_workloads_come_first_where_the_first_was_worse() -> None:
    known = trials(dense("far", 98), b=1.0, a=2.0, d=3.0) | trials(dense("near", 28), a=2.0, b=3.0, c=1.0)
    assert warm_order("abcd", dense("new", 14), known) == ("c", "b", "a", "d")


def test_the_first_plan_stays_first_where_nobody_near_knows_better() -> None:
    known = trials(dense("far", 98), a=2.0, b=1.0, d=3.0) | trials(dense("near", 28), a=1.04, c=1.0, d=1.3)
    assert warm_order("abcd", dense("new", 14), known) == ("a", "c", "b", "d")
    assert warm_order("abcd", dense("new", 14), trials(dense("near", 28), b=3.0, c=1.0, d=1.2)) == ("a", "c", "d", "b")


def test_plans_that_fit_the_shape_badly_are_brought_forward_by_nobody() -> None:
    known = trials(dense("near", 28), a=2.0, b=3.0, j=1.0)
    assert warm_order("abcdefghij", dense("new", 14), known) == tuple("cdefghijab")


def test_plans_that_were_bad_nearby_come_last() -> None:
    known = trials(dense("near", 28), a=2.0, b=1.0, c=1.1)
    assert warm_order("abcd", dense("new", 14), known) == ("b", "c", "d", "a")
    assert warm_order("dabc", dense("new", 14), known) == ("d", "b", "c", "a")


def test_a_best_plan_that_does_not_exist_here_moves_nothing_forward_but_one_as_good() -> None:
    known = trials(dense("near", 28), x=1.0, b=1.05, c=1.4)
    assert warm_order("abc", dense("new", 14), known) == ("a", "b", "c")
    assert warm_order("cab", dense("new", 14), known) == ("b", "c", "a")
    assert warm_order("ac", dense("new", 14), known) == ("a", "c")


def test_who_tried_little_failed_or_is_of_another_kind_is_not_asked() -> None:
    one = dense("new", 14)
    assert warm_order("ab", one, trials(dense("near", 28), b=1.0, a=2.0)) == ("a", "b")
    assert warm_order("ab", one, trials(dense("near", 28), b=1.0, a=None, c=None)) == ("a", "b")
    assert warm_order("ab", one, trials(one, b=1.0, a=2.0, c=3.0)) == ("a", "b")
    assert warm_order("ab", one, trials(dense("away", 14 << 7), b=1.0, a=2.0, c=3.0)) == ("a", "b")
