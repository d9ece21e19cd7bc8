"""The tables of the report."""

from lightning_adabelief.comparison.report.failures import make_failures
from lightning_adabelief.comparison.report.results import Results
from lightning_adabelief.comparison.report.sections import make_beliefs, make_other_metrics, make_rates, make_result
from tests.comparison.synthetic import make_cases

CASES = make_cases()


def load(case):
    drawn = CASES[case]
    return Results(drawn.plan, drawn.stages, drawn.outcomes)


def make_table(case):
    """Return the rows of the result's table by optimizer, as dicts by column."""
    (table,) = make_result(load(case), {}).tables
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}, table.note


def test_a_row_has_verdict_choice_and_cost():
    rows, note = make_table("failures")
    assert rows["sgd"] == {
        "optimizer": "sgd",
        "verdict": "worse",
        "test/loss": "0.351 ± 0.064",
        "difference from adabelief (95 % interval)": "+0.303 (+0.234 to +0.371)",
        "p (Holm)": "< 0.001",
        "seeds to tell": "-",
        "learning rate": "0.000977",
        "weight decay": "0.1",
        "time of a run": "30 s",
        "optimizer's share of a step": "6 %",
        "peak memory": "615 MiB",
        "failed runs": "36 of 59",
    }
    assert rows["adamw"]["verdict"] == "cannot be told apart" and rows["adamw"]["seeds to tell"] == "93"
    assert rows["adabelief"]["verdict"] == "baseline" and "Of 4 comparisons" in note


def test_p_is_adjusted_only_where_there_are_several_and_weight_decay_shown_only_where_it_was_chosen():
    rows, note = make_table("win")
    assert "p" in rows["adamw"] and "weight decay" not in rows["adamw"] and "Holm" not in note


def test_other_metrics_have_differences_without_a_verdict():
    (table,) = make_other_metrics(load("win")).tables
    assert [row[:2] for row in table.rows] == [("test/accuracy", "adabelief"), ("", "adamw")]
    assert table.rows[1][3].startswith("-0.0") and "verdict" not in table.header
    assert make_other_metrics(load("begun")) is None


def test_tuning_is_described_as_it_was_done():
    (one,) = make_rates(load("win"), {"rates": "<svg>"}).paragraphs
    (two,) = make_rates(load("failures"), {"rates": "<svg>"}).paragraphs
    assert "on one seed that is not among" in one and "on 2 seeds that are not among" in two
    assert make_rates(load("planned"), {}) is None


def test_beliefs_are_shown_of_the_optimizers_that_have_them():
    (table,) = make_beliefs(load("win")).tables
    assert table.rows == (("adabelief", "1.2", "3e-7"),)
    assert make_beliefs(load("begun")) is None


def test_failures_are_counted_by_rate_and_crashes_shown_once():
    section = make_failures(load("failures"))
    (table,) = section.tables
    assert table.rows[0] == ("adabelief", "tuning", "0.0032", "0, 0.01, 0.1", "6 diverged of 6", "1000, 1001")
    assert ("radam", "report", "0.00032", "0", "2 diverged of 5", "0, 3") in table.rows
    (crash,) = section.details
    assert crash.title.startswith("What adam-lr") and "others printed last" in crash.title


def test_no_failure_is_said_in_a_sentence():
    assert make_failures(load("win")).paragraphs == ("None of the 20 runs failed.",)
