"""A run as JUnit XML, which continuous integration systems show as tests.

One test case for each gate and one for each sequence. A run that could not be run is an error, a
run that was skipped or not run is a skipped test; none of them is a pass.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from virnucpro_monitor.analysis.comparison import Level, Thresholds
from virnucpro_monitor.records import Failure, GateResult, Outcome, Run, SequenceResult
from virnucpro_monitor.report.sentences import verdict_sentence
from virnucpro_monitor.report.text import block, format_error, format_value, one_line

# What XML 1.0 cannot hold at all, even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def run_junit(
    run: Run,
    sequences: Iterable[SequenceResult] = (),
    *,
    failure: Failure | None = None,
    thresholds: Thresholds | None = None,
) -> str:
    """JUnit XML of one run.

    Args:
        thresholds: of the run's protocol; the seed's if not given.
    """
    return _document(_suite(run, sequences, failure, thresholds))


def runs_junit(
    runs: Iterable[tuple[Run, Iterable[SequenceResult], Failure | None, Thresholds | None]],
) -> str:
    """JUnit XML of several runs, each with its sequences, failure and thresholds."""
    root = ET.Element("testsuites")
    root.extend(_suite(*one) for one in runs)
    return _document(root)


def _document(root: ET.Element) -> str:
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(
    run: Run,
    sequences: Iterable[SequenceResult],
    failure: Failure | None,
    thresholds: Thresholds | None,
) -> ET.Element:
    thresholds = thresholds or Thresholds()
    name = f"{run.target}.{run.benchmark_label}"
    suite = ET.Element("testsuite", name=_text(name), timestamp=run.started_at.isoformat())
    properties = ET.SubElement(suite, "properties")
    for key, value in (
        ("commit", run.commit.hash),
        ("model", run.configuration.model),
        ("dtype", run.configuration.dtype),
        ("device", run.configuration.device),
        ("backend", run.configuration.backend),
        ("weights_digest", run.configuration.weights_digest),
        ("benchmark_digest", run.benchmark_digest),
        ("protocol_version", run.protocol_version),
        ("protocol_digest", run.protocol_digest),
    ):
        ET.SubElement(properties, "property", name=key, value=_text(value))
    _add_verdict(suite, name, run, failure)
    for gate in run.gates:
        _add_gate(suite, name, gate)
    for result in sequences:
        _add_sequence(suite, name, result, thresholds)
    cases = list(suite.iter("testcase"))
    suite.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", f"{run.duration_s:.3f}")
    return suite


def _add_verdict(suite: ET.Element, name: str, run: Run, failure: Failure | None) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_text(name),
        name="verdict",
        time=f"{run.duration_s:.3f}",
    )
    sentence = _text(one_line(verdict_sentence(run), 1000))
    if run.effective_outcome is Outcome.FAILED:
        ET.SubElement(case, "failure", type="not equivalent", message=sentence)
    elif run.outcome is Outcome.ERROR:
        kind = failure.kind if failure else "error"
        error = ET.SubElement(case, "error", type=_text(kind), message=sentence)
        if failure is not None:
            error.text = _text(block("\n".join([failure.traceback, failure.log]).strip()))
    elif run.outcome in (Outcome.SKIPPED, Outcome.NOT_RUN):
        ET.SubElement(case, "skipped", message=sentence)


def _add_gate(suite: ET.Element, name: str, gate: GateResult) -> None:
    case = ET.SubElement(suite, "testcase", classname=_text(f"{name}.gate"), name=_text(gate.name))
    if gate.passed is False and gate.informs:
        told = f"informs by {gate.informs}: {gate.detail}"
        ET.SubElement(case, "skipped", message=_text(one_line(told, 1000)))
    elif gate.passed is None:
        ET.SubElement(case, "skipped", message=_text(gate.detail or "not judged"))
    elif not gate.passed:
        value, limit = format_value(gate.value), format_value(gate.limit, gate.unit)
        message = gate.detail or f"{value}, the limit is {limit}"
        ET.SubElement(case, "failure", type="gate", message=_text(one_line(message, 1000)))


def _add_sequence(
    suite: ET.Element, name: str, result: SequenceResult, thresholds: Thresholds
) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_text(f"{name}.sequence"),
        name=_text(one_line(result.sequence_id)),
    )
    if thresholds.level(result) is not Level.FAILED:
        return
    if result.similarity is None:
        message = f"no similarity: {result.status}"
    else:
        message = (
            f"similarity {result.similarity!r} is below {thresholds.lenient:g} "
            f"(1 - cos {format_error(1.0 - result.similarity)})"
        )
    ET.SubElement(case, "failure", type="sequence", message=_text(message))


def _text(text: str) -> str:
    return _NOT_XML.sub("�", text)
