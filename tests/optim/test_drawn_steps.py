"""Steps of drawn options, shapes and values lie where float64 says, by every implementation."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.optim.drawn_steps import IMPLEMENTATIONS, can_take, cases, run_case

CASES = 40
"""Drawn for each implementation; benchmarks/reliability_steps.py draws 10,000."""


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=CASES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_a_step_lies_where_float64_says(implementation, case):
    if can_take(implementation, case):
        run_case(case, implementation)
