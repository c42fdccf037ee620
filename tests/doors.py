"""What comes in from outside, made up: strategies for each door, and what must hold behind it.

A door takes anything and gives a record or one of our errors: no other exception, no growth, no
hang. `test_doors` knocks a little in each test run, `benchmarks/fuzz_doors.py` ten thousand times.
"""

import argparse
import bz2
import gzip
import json
import math
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from virnucpro_monitor.data.fasta import ALPHABET, read_fasta
from virnucpro_monitor.errors import (
    BenchmarkError,
    ConfigurationError,
    MonitorError,
    NotFoundError,
    ProtocolError,
    StoreError,
    WeightsError,
)
from virnucpro_monitor.host.times import check_cron
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.monitor import naming
from virnucpro_monitor.monitor.verifying import check_everything
from virnucpro_monitor.records.calls import call_from_json, call_to_json
from virnucpro_monitor.records.messages import MessageError, decode_said
from virnucpro_monitor.runner.channel import Channel, ChannelClosedError
from virnucpro_monitor.runner.commit_objects import (
    MAX_NAME_CHARACTERS,
    MAX_SUBJECT_CHARACTERS,
    first_parent,
    parse_commit,
)
from virnucpro_monitor.runner.targets import read_targets
from virnucpro_monitor.secrecy import masked, masked_url
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store import health_reader, reader, series_reader
from virnucpro_monitor.store.engine import Engine, open_engine
from virnucpro_monitor.validation.protocol import load_protocol, parse_protocol, seed_rule


@dataclass(frozen=True)
class Door:
    """Attributes:
    cases: what knocks.
    knock: takes one case, and asserts what must hold.
    """

    cases: st.SearchStrategy[Any]
    knock: Callable[[Any], None]


_LINES = st.sampled_from(
    [
        b"tree " + b"a" * 40, b"parent " + b"b" * 40, b"parent ", b"parent x", b"author ",
        b"author A <a@b> 1700000000 +0100", b"author A <a@b> 1 +051800", b"author < > >",
        b"committer B <b@c> -1 +9999", b"committer B <b@c> 99999999999999999 -0000",
        b"committer B <b@c> 253402300799 +1400", b"encoding utf-16", b"encoding zlib", b"encoding ",
        b"encoding punycode", b"encoding idna", b"encoding unicode_escape", b"encoding utf-7",
        b"gpgsig x", b" continued", b"", b"mergetag object", b"HG:extra \xff\x00",
    ]
)  # fmt: skip
_HEADERS = st.lists(_LINES | st.binary(max_size=60), max_size=12).map(b"\n".join)


def knock_commit(content: bytes) -> None:
    commit = parse_commit("c" * 40, content, 3, True)
    for text, limit in (
        (commit.subject, MAX_SUBJECT_CHARACTERS),
        (commit.author, MAX_NAME_CHARACTERS),
    ):
        assert len(text) <= limit
        assert "\0" not in text
        text.encode()
    for moment in (commit.authored_at, commit.committed_at):
        if moment is not None:
            assert datetime(1970, 1, 1, tzinfo=UTC) <= moment.astimezone(UTC)
            assert datetime.fromisoformat(moment.isoformat()) == moment
    first_parent(content)


COMMITS = Door(
    st.one_of(
        st.binary(max_size=300),
        _HEADERS,
        st.builds(lambda header, body: header + b"\n\n" + body, _HEADERS, st.binary(max_size=200)),
    ),
    knock_commit,
)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@st.composite
def _protocols(draw: st.DrawFn) -> str:
    """The latest protocol with a few places changed, as text; sometimes with bytes changed too."""
    content = json.loads(json.dumps(load_protocol().content))
    content["evidence"]["runs"] = content["evidence"]["runs"][:1]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = content, draw(st.sampled_from(sorted(content)))
        while isinstance(holder[key], dict) and holder[key] and draw(st.booleans()):
            holder = holder[key]
            key = draw(st.sampled_from(sorted(holder)))
        if draw(st.booleans()):
            holder[key] = draw(
                _JSON | st.floats() | st.sampled_from([math.nan, math.inf, -1, 0, 1e308, True])
            )
        else:
            del holder[key]
        if not content:
            break
    text = json.dumps(content)
    if draw(st.booleans()):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.text(max_size=5)) + text[place + draw(st.integers(0, 3)) :]
    return text


def knock_protocol(text: str) -> None:
    try:
        protocol = parse_protocol(text, "fuzz.json")
    except ProtocolError as error:
        assert "\n" not in str(error)  # noqa: PT017 (accepting is right, too)
        assert len(str(error)) < 1000  # noqa: PT017
        return
    rule = seed_rule(protocol)
    assert rule.strict >= 0.999
    assert rule.lenient >= 0.995
    assert 0 <= rule.fraction <= 0.01
    for limits in protocol.content["limits"].values():
        assert all(math.isfinite(limit) and limit >= 0 for limit in limits.values())
    assert 0 < protocol.content["oracle_factor"] < math.inf


PROTOCOLS = Door(_protocols() | st.text(max_size=100), knock_protocol)


_KEYS = st.sampled_from(
    [
        "db", "model", "weights", "device", "dtype", "backend", "token_budget", "benchmark",
        "timeout_s", "memory_limit_gib", "workers", "cache_dir", "writable_app", "targets",
        "keep_embeddings",
        "targets.a", "targets.a.location", "targets.a.paths", "protocol", "unknown", '"quoted"',
    ]
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from(
        [
            '""', "nan", "inf", "-inf", "-1", "0", "1e400", "true", "[]", "{}", "[1]", "[[[]]]",
            '"seed"', '["seed"]', "2026-01-01", "12:00:00", "{ location = 1 }", "0x7f", "1_000",
            '{ location = "." }', '"\\u0000"', '"a\\nb"', "99999999999999999999", '"float32"',
        ]
    ),
    st.text(max_size=20).map(lambda text: json.dumps(text)),
    st.floats().map(str),
    st.integers().map(str),
    st.text(max_size=10),
)  # fmt: skip
_TOML = st.lists(st.tuples(_KEYS, _VALUES), max_size=5).map(
    lambda pairs: "\n".join(f"{key} = {value}" for key, value in pairs)
)
_TABLES = st.tuples(_TOML, st.sampled_from(["[targets]", "[targets.a]", "[[targets]]", "[x]", ""]))


@contextmanager
def settings_door(folder: Path) -> Iterator[Door]:
    """The settings file, which is read from a folder."""
    path = folder / "fuzz.toml"

    def knock(text: str) -> None:
        path.write_bytes(text.encode(errors="replace"))
        try:
            settings = load_settings()
        except ConfigurationError as error:
            assert len(str(error)) < 2000  # noqa: PT017 (accepting is right, too)
        else:
            assert math.isfinite(settings.timeout_s)
            assert settings.timeout_s > 0
            assert settings.token_budget > 0
            limit = settings.memory_limit_gib
            assert limit is None or 0 < limit < math.inf
        try:
            for target in read_targets(path):
                assert isinstance(target.location, str)
        except ConfigurationError as error:
            assert "fuzz.toml" in str(error)  # noqa: PT017

    cases = _TOML | st.tuples(_TABLES, _TOML).map(lambda both: "\n".join([*both[0], both[1]]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIRNUCPRO_MONITOR_SETTINGS", str(path))
        yield Door(cases | st.text(max_size=60), knock)


TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789abcdef", min_size=1, max_size=64),
    st.sampled_from(
        [
            "HEAD", "main", "^HEAD", "HEAD..main", "..", "a..b", "-x", "--help", "2026-02-30",
            "30d", "99999999999y", "0d", "9999-12-31", "0000-00-00", "2026-01-01T25:00", "a\0b",
            "%00", "\0", "~nobody/x", "\ud800",
            "' or 1=1 --", "%", "_", "\\", "\udc80", "é" * 400, "../../etc/passwd", "٣d",
        ]
    ),
)  # fmt: skip


def addresses_door(engine: Engine) -> Door:
    """What a page's address and a command line name: commits, runs, bounds in time."""
    now = datetime(2026, 3, 1, tzinfo=UTC)

    def knock(case: tuple[str, str, bool]) -> None:
        text, target, is_end = case
        for ask in (
            lambda: naming.find_commits(engine, text, target or None),
            lambda: naming.find_run(engine, text, target=target or None),
            lambda: naming.find_bound(engine, text, target or None, now, is_end=is_end),
            lambda: naming.choose_target(engine, target or text, revision=text),
        ):
            try:
                ask()
            except MonitorError as error:
                assert "\n" not in str(error).strip()  # noqa: PT017 (an answer is right, too)

    targets = st.sampled_from(["", "sample", "other", "none"]) | st.text(max_size=10)
    return Door(st.tuples(TEXTS, targets, st.booleans()), knock)


def knock_message(line: bytes) -> None:
    try:
        decode_said(line)
    except MessageError as error:
        assert "\n" not in str(error)  # noqa: PT017 (accepting is right, too)


MESSAGES = Door(
    st.one_of(
        st.binary(max_size=200),
        _JSON.map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries(
            {
                "event": st.sampled_from(["advanced", "judged", "failed", "ready", "refused", ""])
                | _JSON,
                "benchmark": _JSON,
                "done": _JSON,
                "total": _JSON,
                "verdict": _JSON,
                "failure": _JSON,
            }
        ).map(lambda value: json.dumps(value).encode()),
    ),
    knock_message,
)


def knock_answer(data: bytes) -> None:
    """What a target's process sends is an answer, or refused, and never waited for twice."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        near = Channel(ours)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            while True:
                answer, tensors = near.receive()
                assert call_from_json(call_to_json(answer)) == answer
                assert all(type(one) is torch.Tensor for one in tensors)
        except (MessageError, ChannelClosedError):
            pass


def _framed(header: Any, rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + rest


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.lists(st.integers(-1, 3), max_size=3),
)  # fmt: skip
_SHAPES = st.lists(
    st.tuples(
        st.sampled_from(["float32", "int64", "bfloat16", "bool", "object", ""]) | _VALUES,
        st.lists(st.integers(-1, 4) | st.integers(0, 2**60), max_size=5) | _VALUES,
    )
    | _VALUES,
    max_size=3,
)
_ANSWER_HEADERS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["Embedded", "Given", "Packs", "Loaded", "Raised", "Confined", ""]),
        "tensors": _SHAPES | _VALUES,
    },
    optional={
        "layers": st.lists(_VALUES, max_size=3) | _VALUES,
        "changed": _VALUES,
        "packs": st.lists(_VALUES, max_size=2) | _VALUES,
        "files": _VALUES,
        "network": st.booleans(),
        "processes": st.booleans(),
    },
)
ANSWERS = Door(
    st.binary(max_size=60) | st.builds(_framed, _ANSWER_HEADERS | _VALUES, st.binary(max_size=200)),
    knock_answer,
)


def knock_cron(text: str) -> None:
    try:
        checked = check_cron(text)
    except ConfigurationError:
        return
    assert len(checked.split(" ")) == 5
    assert check_cron(checked) == checked


_FIELD = st.sampled_from(
    [
        "*",
        "*/5",
        "0",
        "7",
        "59",
        "60",
        "1-5",
        "5/15",
        "mon-fri",
        "jan",
        "31",
        "2",
        "1,2",
        "*/0",
        "L",
    ]
) | st.text(alphabet="0123456789*/,-#LWabcmon ", max_size=6)
CRON = Door(
    st.lists(_FIELD, min_size=4, max_size=6).map(" ".join) | st.text(max_size=20), knock_cron
)


def knock_secret(text: str) -> None:
    once = masked(text)
    assert masked(once) == once
    url = f"postgresql://user:{text}S3cr3t{text}@host/db"
    assert "S3cr3t" not in masked_url(url)
    if not any(character.isspace() for character in text):
        assert "S3cr3t" not in masked(f"The database {url} cannot be used.")


SECRETS = Door(st.text(max_size=80), knock_secret)


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file: bytes that stand at some places instead, and where it ends."""

    changes: tuple[tuple[int, bytes], ...]
    end: int

    def of(self, whole: bytes) -> bytes:
        content = bytearray(whole)
        for place, new in self.changes:
            content[place : place + len(new)] = new
        return bytes(content[: self.end])


@st.composite
def _damages(draw: st.DrawFn, num_bytes: int) -> Damage:
    """Some bytes at a few places, and sometimes a lost end."""
    # Hypothesis draws small numbers more often: every place is to be met.
    chance = draw(st.randoms(use_true_random=True))
    changes = []
    for _ in range(draw(st.integers(1, 8))):
        new = draw(
            st.binary(min_size=1, max_size=40)
            | st.binary(min_size=1, max_size=2)
            | st.just(bytes(40))
            | st.just(b"\xff" * 40)
        )
        changes.append((chance.randrange(num_bytes), new))
    cut = draw(st.integers(0, 4)) == 0
    return Damage(tuple(changes), chance.randrange(num_bytes) if cut else num_bytes)


def _garbled(whole: bytes) -> st.SearchStrategy[bytes]:
    return _damages(len(whole)).map(lambda damage: damage.of(whole))


_FASTA_LINES: st.SearchStrategy[bytes] = st.sampled_from(
    [
        b">a", b">b two words", b">", b"> ", b";c", b"#c", b"MKTAYIAKQR", b"mkt*", b"MK-T", b"ACGT",
        b"\xff\xfe>\x00a\x00", b"\xef\xbb\xbf>a", b"\r", b"\x00", "\u017f".encode(), b"",
    ]
) | st.binary(max_size=30)  # fmt: skip
_FASTA = st.lists(_FASTA_LINES, max_size=8).map(b"\n".join)


def fasta_door(folder: Path) -> Door:
    """A file of sequences: plain text of any kind, or packed and garbled."""
    path = folder / "fuzz.fasta"

    def knock(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = read_fasta(path)
        except BenchmarkError as error:
            assert "fuzz.fasta" in str(error)  # noqa: PT017 (accepting is right, too)
            assert len(str(error)) < 1000  # noqa: PT017
            return
        assert found
        assert len({one.id for one in found}) == len(found)
        assert all(one.residues and ALPHABET.issuperset(one.residues) for one in found)

    plain = b">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n"
    packed = st.sampled_from([gzip.compress(plain, mtime=0), bz2.compress(plain)])
    return Door(_FASTA | packed.flatmap(_garbled) | st.binary(max_size=100), knock)


def checkpoint_door(folder: Path) -> Door:
    """A checkpoint of fair-esm's format, garbled, in either of PyTorch's two containers."""
    path = folder / "fuzz.pt"
    content = {
        "cfg": {"model": argparse.Namespace(encoder_layers=6, encoder_embed_dim=320)},
        "model": {"encoder.sentence_encoder.embed_tokens.weight": torch.ones(2, 3)},
    }
    wholes = []
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        wholes.append(path.read_bytes())

    def knock(data: bytes) -> None:
        path.write_bytes(data)
        with pytest.raises(WeightsError) as refused:  # none is a whole model
            load_checkpoint("esm2_t6_8M_UR50D", path)
        assert "fuzz.pt" in str(refused.value)

    return Door(st.sampled_from(wholes).flatmap(_garbled) | st.binary(max_size=100), knock)


def database_door(folder: Path, whole: bytes) -> Door:
    """A garbled SQLite file of this program's: what it says is one sentence."""
    path = folder / "fuzz.db"

    def knock(case: tuple[Damage, Callable[[Engine], Any]]) -> None:
        damage, ask = case
        path.write_bytes(damage.of(whole))
        try:
            engine = open_engine(f"sqlite:///{path}", read_only=True)
        except StoreError as error:
            assert "\n" not in str(error)  # noqa: PT017 (an answer is right, too)
            return
        try:
            ask(engine)
        except (StoreError, NotFoundError) as error:
            assert "\n" not in str(error)  # noqa: PT017
        finally:
            engine.dispose()

    def check(engine: Engine) -> None:
        for problem in check_everything(str(engine.url)).problems:
            assert "\n" not in problem

    questions: list[Callable[[Engine], Any]] = [
        lambda engine: reader.load_runs(engine, all_attempts=True),
        lambda engine: reader.load_sequences(engine, 1),
        lambda engine: reader.load_documents(engine, 1),
        series_reader.load_series,
        health_reader.load_health,
        check,
    ]
    return Door(st.tuples(_damages(len(whole)), st.sampled_from(questions)), knock)
