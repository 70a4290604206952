"""What is made of measurements is right, and what is not true is no measurement."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.chart import Panel, chart
from benchmarks.client import Report
from benchmarks.figures import figure, markdown, median, ratio, text
from benchmarks.growth import SWEEPS, flat, remembered, steady
from benchmarks.page import PAGE, replace_block
from benchmarks.results import BATCH, HALF, SINGLE, TARGETS, ratio_of, table, verdicts
from benchmarks.stage_costs import KEPT, calls, grown, ratios
from benchmarks.turn import Measured, Untrue, check

ROOT = Path(__file__).parents[2]
RIVALS = ROOT / "benchmarks/rivals"
GO = "Go + franz-go"

MEASURED = Measured(
    requests_s=100.0,
    events_s=100.0,
    p50_ms=1.0,
    p99_ms=2.0,
    p999_ms=3.0,
    cpu_us=50.0,
    server_cores=1.0,
    others_cores=0.5,
    elsewhere=0.0,
    resident_mb=90.0,
    not_accepted=0,
)
REPORT = Report(
    requests=10,
    events=1000,
    stored=1000,
    statuses={"202": 10},
    unanswered=0,
    seconds=1.0,
    cpu_seconds=0.1,
    p50_ms=1.0,
    p99_ms=1.0,
    p999_ms=1.0,
    max_ms=1.0,
)


def rounds(*events_s: float, **others: float) -> list[dict[str, float]]:
    return [replace(MEASURED, events_s=each, requests_s=each, **others).to_json() for each in events_s]


@pytest.mark.parametrize(("values", "middle"), [([3, 1, 2], 2), ([4, 1, 2, 3], 2.5), ([7], 7)])
def test_the_median_is_the_middle_value(values: list[float], middle: float) -> None:
    assert median(values) == middle


def test_of_no_values_there_is_no_median() -> None:
    assert figure(median([])) == "-"


def test_a_ratio_is_made_round_by_round() -> None:
    """In the second round everything was slow, ours and theirs: the ratio does not suffer."""
    assert ratio([200, 20, 180], [100, 10, 60]) == 2


def test_rounds_that_only_one_has_are_left_out_of_a_ratio() -> None:
    assert ratio_of(rounds(200, 300), rounds(100), "events_s") == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.1234, "0.12"), (12.345, "12.3"), (123.4, "123"), (1234, "1 230"), (98765.4, "98 800"), (7, "7"), ("a", "a")],
)
def test_a_figure_has_no_more_digits_than_it_deserves(value: object, shown: str) -> None:
    assert figure(value) == shown


def test_a_table_reads_the_same_on_a_page_and_on_a_terminal() -> None:
    head, rows = ("", "n"), [("one", 1), ("three", 333.3)]

    assert markdown(head, rows) == "|  | n |\n| --- | ---: |\n| one | 1 |\n| three | 333 |\n"
    assert text(head, rows) == "         n\none      1\nthree  333\n"


def test_ours_is_compared_with_each_of_the_others() -> None:
    results = {"ours": {SINGLE: rounds(300, 330, 270)}, "theirs": {SINGLE: rounds(100, 110, 90)}}

    _, [ours, theirs] = table(results, SINGLE)

    assert (ours[1], theirs[1]) == (300, 100)
    assert theirs[-2:] == (pytest.approx(3), pytest.approx(1))


def test_who_could_not_keep_up_is_not_in_the_table() -> None:
    _, rows = table({"ours": {HALF: rounds(300)}, "theirs": {HALF: []}}, HALF)

    assert [row[0] for row in rows] == ["ours"]


@pytest.mark.parametrize(("ours", "verdict"), [(75, "reached"), (74, "MISSED")])
def test_a_target_is_reached_or_missed(ours: float, verdict: str) -> None:
    results = {"ours": {SINGLE: rounds(ours, cpu_us=100.0)}, GO: {SINGLE: rounds(100, cpu_us=80.0)}}

    _, [speed, cost] = verdicts(results)

    assert speed[1:] == (GO, "at least 0.75", f"{ours / 100:.2f}", verdict)
    assert cost[2:] == ("at most 1.4", "1.25", "reached")


def test_targets_are_of_works_that_are_measured() -> None:
    assert {target.work for target in TARGETS} == {SINGLE, BATCH, HALF}


def test_exactly_what_was_accepted_is_stored() -> None:
    check(REPORT, 1000, batch=100)


@pytest.mark.parametrize("stored", [999, 1001])
def test_a_measurement_with_an_event_lost_or_twice_is_none(stored: int) -> None:
    with pytest.raises(Untrue, match=f"1000 events were accepted, 0 were not, and {stored} are stored"):
        check(REPORT, stored, batch=100)


@pytest.mark.parametrize("stored", [1000, 1300])
def test_what_was_not_accepted_may_be_stored(stored: int) -> None:
    report = replace(REPORT, statuses={"202": 10, "504": 2}, unanswered=1)

    check(report, stored, batch=100)


def test_a_block_of_the_page_is_replaced_and_nothing_else() -> None:
    page = "before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n"

    assert replace_block(page, "a", "\\new") == "before\n<!-- a: begin -->\n\n\\new\n\n<!-- a: end -->\nafter\n"


def test_a_block_that_the_page_lacks_is_an_error() -> None:
    with pytest.raises(LookupError):
        replace_block("nothing here", "a", "new")


def test_a_chart_is_a_picture_with_the_longest_bar_for_the_largest_value() -> None:
    picture = ElementTree.fromstring(chart([Panel("a < b", {"ours": 50.0, "theirs": 100.0})]))

    widths = [float(bar.attrib["width"]) for bar in picture.iter("{http://www.w3.org/2000/svg}rect")]

    assert widths[0] * 2 == widths[1] > 0


def test_a_stage_is_slower_only_by_its_ratio() -> None:
    assert ratios({"reference": 2.0, "parse": 6.0}) == {"parse": 3.0}
    assert grown({"parse": 3.0, "encode": 1.0}, {"parse": 1.9, "encode": 0.9}) == {"parse": pytest.approx(3 / 1.9)}


def test_the_calls_of_a_stage_are_counted() -> None:
    def once() -> int:
        return len("one of C, within one of Python")

    assert calls(lambda: [once(), once()]) == 4


def test_a_stage_that_is_not_kept_is_told_of() -> None:
    assert grown({"new": 1.0}, {"old": 1.0}).keys() == {"new", "old"}


def test_a_cost_is_near_flat_up_to_one_and_a_half() -> None:
    costs = [(n, replace(MEASURED, cpu_us=cost)) for n, cost in ((1, 90.0), (10, 20.0), (100, 30.0))]

    assert flat()(costs).startswith("NOT FLAT")
    assert flat(least=10)(costs).startswith("near flat from 10 on")


def test_a_rate_that_falls_at_the_end_is_told_of() -> None:
    points = [(n, replace(MEASURED, events_s=rate)) for n, rate in ((1, 50.0), (64, 100.0), (1000, 60.0))]

    assert steady(points).startswith("FALLS: at the end 60%")


@pytest.mark.parametrize(
    ("resident_mb", "verdict"),
    [([80, 90, 90, 90.5], "flat"), ([80, 90, 100, 110], "TOO MUCH"), ([130, 130, 130, 130], "TOO MUCH")],
)
def test_memory_is_flat_or_too_much(resident_mb: list[float], verdict: str) -> None:
    points = [(float(n), replace(MEASURED, resident_mb=each)) for n, each in enumerate(resident_mb)]

    assert remembered(points).startswith(f"{verdict}: ")


def test_every_benchmark_is_explained_beside_its_figures() -> None:
    targets = re.findall(r"^(bench[a-z-]*):", (ROOT / "Makefile").read_text(), re.M)

    assert len(targets) >= 4
    assert [target for target in targets if f"`make {target}`" not in PAGE.read_text()] == []


def test_the_page_has_a_place_for_each_measurement() -> None:
    page = PAGE.read_text()

    for name in ["compare", "stages", *(f"growth-{sweep.name}" for sweep in SWEEPS)]:
        assert replace_block(page, name, "").count(f"<!-- {name}: begin -->") == 1


def test_the_kept_ratios_are_those_of_all_stages() -> None:
    assert len(json.loads(KEPT.read_text())["ratios"]) > 10


def test_rivals_are_installed_with_the_versions_that_were_measured() -> None:
    node = json.loads((RIVALS / "express-kafkajs/package-lock.json").read_text())["packages"]
    python = re.split(r"^(?=\S)", (RIVALS / "fastapi-aiokafka/requirements.txt").read_text(), flags=re.M)

    assert [name for name, package in node.items() if name and "integrity" not in package] == []
    assert [entry for entry in python if entry and "--hash=sha256:" not in entry] == []
    assert (RIVALS / "go-franz/go.sum").read_text()


@pytest.mark.parametrize("file", ["express-kafkajs/package-lock.json", "fastapi-aiokafka/requirements.txt"])
def test_rivals_come_from_wherever_the_machine_says(file: str) -> None:
    assert "://" not in (RIVALS / file).read_text()
