import shlex
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.analysis.histories import (
    START,
    acknowledgement,
    commit,
    configuration,
    gate_history,
    history,
    run,
)
from tests.report.samples import plain_comparison
from virnucpro_monitor.analysis.comparison import compare_runs
from virnucpro_monitor.analysis.incidents import Incident, IncidentState, derive_incidents
from virnucpro_monitor.analysis.regressions import find_regressions
from virnucpro_monitor.records import Acknowledgement, Target
from virnucpro_monitor.report.sentences import (
    cause_words,
    comparison_sentence,
    incident_sentence,
    regressions_sentence,
    reproduce_command,
    verdict_sentence,
)

NOW = START + timedelta(days=200)


def first_incident(letters: str, *acknowledgements: Acknowledgement) -> Incident:
    return derive_incidents(history(letters), acknowledgements, now=NOW)[0]


@pytest.mark.parametrize(
    ("letter", "sentence"),
    [
        ("P", "Passed: 3 of 3 (100 %) sequences agree, worst error 1.0e-6 (s0)."),
        ("F", "Failed: A reason for failed."),
        ("E", "Could not be run: A reason for error."),
        ("N", "Not run: A reason for not_run."),
        ("f", "Skipped, inherits failed from 0000000000: A reason for failed."),
    ],
)
def test_each_outcome_has_its_sentence(letter: str, sentence: str) -> None:
    assert verdict_sentence(run(1, letter)) == sentence


def test_a_comparison_says_what_changed_and_on_how_much() -> None:
    assert comparison_sentence(plain_comparison()) == (
        "The promise broke from 0000000000 to 0000000000: 1 newly bad, 1 mended, 1 worse, "
        "1 better; 5 of 5 sequences compared."
    )


def test_a_comparison_that_should_not_be_made_says_so() -> None:
    comparison = compare_runs(run(0), [], run(1, protocol_digest="aa" * 32), [])
    assert comparison_sentence(comparison).endswith("Not comparable: see the reasons.")


def test_one_measurement_cannot_differ_from_itself() -> None:
    measured = run(0)
    comparison = compare_runs(measured, [], run(1, "p"), [], head_measured=measured)
    assert comparison_sentence(comparison).endswith(
        "both stand on one measurement, so nothing can differ."
    )


def test_an_incident_says_since_when_and_what_can_be_to_blame() -> None:
    assert incident_sentence(first_incident("P  FF")) == (
        "Packed side, gate seed, since 0000000000 (2026-01-04); last good 0000000000; one of 3 "
        "commits is to blame; worst error 1.0e-2; open, 2 bad runs so far."
    )
    assert incident_sentence(first_incident("EP")) == (
        "Could not be run, since 0000000000 (2026-01-01); no good commit before it is known; "
        "fixed by 0000000000 (2026-01-02)."
    )
    # What fails itself is not said to have mended all.
    one = derive_incidents(gate_history([["seed"], ["leak"]]), now=NOW)[0]
    assert incident_sentence(one).endswith(
        "; fixed by 0000000000 (2026-01-02), which fails for another cause."
    )
    # What another cause had broken already is not called good.
    other = derive_incidents(history("PFE"), now=NOW)[-1]
    assert "; last without it 0000000000; " in incident_sentence(other)
    key = first_incident("PF").key
    assert incident_sentence(first_incident("PF", acknowledgement(key))).endswith(
        "acknowledged by Ada."
    )


def test_several_gates_are_listed() -> None:
    runs = [run(0), run(1, "F", failing=["seed", "gain", "leak"])]
    (incident,) = derive_incidents(runs, now=NOW)
    assert cause_words(incident) == "packed side, gates seed, gain and leak"


def test_regressions_are_told_with_what_could_be_judged() -> None:
    runs = [*history("PFPF"), *history("P", benchmark="gone")]
    found = find_regressions(runs, derive_incidents(runs, now=NOW), since=commit(0))
    assert regressions_sentence(found) == (
        "1 incident begun and not fixed and 1 incident begun and fixed; 1 of 2 series could be "
        "judged; 1 vanished."
    )
    # What was force-pushed away is over, but nothing fixed it.
    away = [replace(one, state=IncidentState.REWRITTEN) for one in derive_incidents(runs, now=NOW)]
    found = find_regressions(runs, away, since=commit(0))
    assert regressions_sentence(found).startswith("2 incidents begun and over; ")
    quiet = find_regressions(history("PP"), [])
    assert regressions_sentence(quiet) == "No regression; 1 of 1 series could be judged."


def test_the_command_repeats_the_run() -> None:
    measured = run(1, configuration=configuration(device="cuda", backend="flash-attn"))
    target = Target(name="project", location="https://example.org/project.git")
    words = shlex.split(reproduce_command(measured, target))
    assert words[:2] == ["virnucpro-monitor", "run"]
    options = dict(zip(words[2:-1:2], words[3:-1:2], strict=True))
    assert options == {
        "--target": "project",
        "--commit": measured.commit.hash,
        "--benchmark": "seed@1",
        "--model": "esm2_t6_8M_UR50D",
        "--weights": "synthetic",
        "--device": "cuda:0",
        "--dtype": "float32",
        "--token-budget": "4096",
    }
    assert words[-1] == "--force"


def test_the_command_for_the_built_in_target_names_no_commit() -> None:
    builtin = Target(name="builtin", location=".", adapter="builtin")
    command = reproduce_command(run(1), builtin)
    assert "--commit" not in command
    assert "--backend sdpa" in command


def test_the_command_quotes_what_a_shell_would_obey() -> None:
    hostile = run(1, target="x; rm -rf ~")
    assert "'x; rm -rf ~'" in reproduce_command(hostile, None)
