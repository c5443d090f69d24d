"""The sampling plan on presentation times alone."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.sampling import SamplingPlan, fit

PLAN = SamplingPlan()
times_strategy = st.lists(st.integers(0, 10**8), min_size=1, max_size=400, unique=True).map(sorted)


def steady(seconds: float, rate: float) -> list[int]:
    return [round(index * 1_000_000 / rate) for index in range(int(seconds * rate))]


def test_survey_takes_the_middles_of_sixteen_equal_stretches() -> None:
    assert PLAN.survey_times(steady(16, 2)) == tuple(second * 1_000_000 + 500_000 for second in range(16))


def test_survey_takes_all_of_a_few() -> None:
    assert PLAN.survey_times(steady(16, 1)) == tuple(steady(16, 1))
    assert PLAN.survey_times([7]) == (7,)


def test_survey_goes_by_time_not_by_count() -> None:
    burst_then_slow = [*range(0, 1_000_000, 10_000), *range(1_000_000, 16_000_000, 500_000)]
    survey = PLAN.survey_times(burst_then_slow)
    assert sum(time < 1_000_000 for time in survey) == 1
    assert len(survey) == 16


def test_dense_takes_every_picture_of_a_short_clip() -> None:
    assert PLAN.dense_times(steady(10, 25)) == tuple(steady(10, 25))
    assert PLAN.dense_times(steady(3, 23.976)) == tuple(steady(3, 23.976))
    assert PLAN.dense_times([5]) == (5,)
    assert PLAN.dense_times([]) == ()


def test_dense_takes_the_middle_ten_seconds_of_a_long_clip() -> None:
    dense = PLAN.dense_times(steady(60, 25))
    assert (dense[0], dense[-1], len(dense)) == (25_000_000, 34_960_000, 250)


def test_dense_thins_fast_clips_to_twenty_five_a_second() -> None:
    assert PLAN.dense_times(steady(2, 50)) == tuple(steady(2, 25))
    for rate in (30, 29.97, 48, 60, 120):
        assert 0.97 * 250 <= len(PLAN.dense_times(steady(10, rate))) <= 251


def test_dense_absorbs_the_rounding_of_millisecond_containers() -> None:
    rounded = [round(index * 1000 / 24.9) * 1000 for index in range(200)]
    assert PLAN.dense_times(rounded) == tuple(rounded)


@given(times_strategy)
def test_samples_are_increasing_and_bounded(times: list[int]) -> None:
    survey, dense = PLAN.survey_times(times), PLAN.dense_times(times)
    assert 1 <= len(survey) <= 16
    assert len(dense) <= 252
    for chosen in (survey, dense):
        assert set(chosen) <= set(times)
        assert list(chosen) == sorted(set(chosen))


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_fit_stays_within_bounds(width: int, height: int) -> None:
    fitted = fit(width, height, max_side=640, max_pixels=250_000)
    assert max(fitted) <= 640
    assert fitted[0] * fitted[1] <= 250_000
    assert min(fitted) >= 1


def test_fit_never_enlarges() -> None:
    assert fit(321, 203, max_side=640) == (321, 203)
    assert fit(1920, 1080, max_side=640, max_pixels=250_000) == (640, 360)
