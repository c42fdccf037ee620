"""The tables.

    targets ─< commits ─< runs >─ configurations, environments, protocols, benchmark_sets
                           │                                                    │
                           ├─< sequence_results  (run_id, sequence_index)   benchmark_sequences
                           ├── failures                                (benchmark_set_id, index)
                           ├─< documents
                           └─< judgements        (stored measures under another protocol)
    targets ─< bisections ─< bisect_steps
    targets, benchmark_sets, configurations ─< chain_links     one for each run, in their order
    heartbeats, leases, acknowledgements            stand alone

A run's figures and gates are columns of `runs`, so that no list reads `sequence_results`. That
table is narrow and clustered by run; which sequence a row speaks of follows from its index and the
run's benchmark set.
"""

from datetime import datetime

from sqlalchemy import Double, ForeignKey, Index, MetaData, UniqueConstraint, false, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from virnucpro_monitor.records import (
    AlertKind,
    Culprit,
    DeliveryState,
    Json,
    Outcome,
    SequenceStatus,
)
from virnucpro_monitor.store.types import (
    CleanText,
    JsonText,
    OptionalJsonText,
    UtcDateTime,
    enum_type,
)


class Base(DeclarativeBase):
    # SQLite can only alter a constraint that has a name.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # Spelled out: the default for `float` changed between SQLAlchemy's minor versions.
    type_annotation_map = {  # noqa: RUF012
        float: Double(),
        str: CleanText(),
        datetime: UtcDateTime(),
        Outcome: enum_type(Outcome),
        Culprit: enum_type(Culprit),
        SequenceStatus: enum_type(SequenceStatus),
    }


class TargetRow(Base):
    __tablename__ = "targets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    location: Mapped[str]
    adapter: Mapped[str]
    package: Mapped[str | None]
    paths: Mapped[Json] = mapped_column(JsonText)
    branch: Mapped[str | None]
    requirements: Mapped[str | None]


class CommitRow(Base):
    __tablename__ = "commits"
    __table_args__ = (
        UniqueConstraint("target_id", "hash"),
        Index(None, "target_id", "position", "committed_at"),
        Index(None, "hash"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("targets.id", ondelete="CASCADE"))
    hash: Mapped[str]
    parents: Mapped[Json] = mapped_column(JsonText)
    subject: Mapped[str]
    author: Mapped[str]
    authored_at: Mapped[datetime | None]
    committed_at: Mapped[datetime | None]
    position: Mapped[int | None]
    on_branch: Mapped[bool]
    former_position: Mapped[int | None]
    left_at: Mapped[datetime | None]


class BenchmarkSetRow(Base):
    __tablename__ = "benchmark_sets"
    __table_args__ = (UniqueConstraint("name", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    digest: Mapped[str]
    description: Mapped[str]


class BenchmarkSequenceRow(Base):
    __tablename__ = "benchmark_sequences"
    __table_args__ = (
        UniqueConstraint("benchmark_set_id", "sequence_id"),
        {"sqlite_with_rowid": False},
    )

    benchmark_set_id: Mapped[int] = mapped_column(
        ForeignKey("benchmark_sets.id", ondelete="CASCADE"), primary_key=True
    )
    sequence_index: Mapped[int] = mapped_column(primary_key=True)
    sequence_id: Mapped[str]
    residues: Mapped[str]


class ConfigurationRow(Base):
    __tablename__ = "configurations"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    model: Mapped[str]
    weights: Mapped[str]
    weights_digest: Mapped[str]
    dtype: Mapped[str]
    device: Mapped[str]
    backend: Mapped[str]
    token_budget: Mapped[int]


class EnvironmentRow(Base):
    __tablename__ = "environments"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    host: Mapped[str]
    platform: Mapped[str]
    python: Mapped[str]
    torch: Mapped[str]
    cuda: Mapped[str | None]
    gpu: Mapped[str | None]
    driver: Mapped[str | None]
    flash_attn: Mapped[str | None]
    fair_esm: Mapped[str | None]
    # NULL in rows from before there were such columns.
    packages: Mapped[Json] = mapped_column(OptionalJsonText, nullable=True)
    parts: Mapped[Json] = mapped_column(OptionalJsonText, nullable=True)


class ProtocolRow(Base):
    __tablename__ = "protocols"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    version: Mapped[str]
    content: Mapped[Json] = mapped_column(JsonText)


class RunRow(Base):
    __tablename__ = "runs"
    __table_args__ = (
        # One row of each commit, benchmark set and configuration is current: the database itself
        # keeps two runners from both storing one.
        Index(
            "uq_runs_current",
            "commit_id",
            "benchmark_set_id",
            "configuration_id",
            unique=True,
            sqlite_where=text("superseded = 0"),
            postgresql_where=text("NOT superseded"),
        ),
        Index(
            "ix_runs_series",
            "target_id",
            "superseded",
            "benchmark_set_id",
            "configuration_id",
            "commit_id",
            "outcome",
            "inherited_outcome",
        ),
        Index(None, "commit_id"),
        Index(None, "inherited_run_id"),
        # Skipped runs that were stored before the run that they inherit from.
        Index(
            "ix_runs_waiting",
            "inherited_from",
            sqlite_where=text("inherited_from IS NOT NULL AND inherited_run_id IS NULL"),
            postgresql_where=text("inherited_from IS NOT NULL AND inherited_run_id IS NULL"),
        ),
        Index(None, "target_id", "code_digest"),
        Index(None, "configuration_id", "environment_id"),
        # Covers the health page: run time per day and device, and the number of stored rows.
        Index("ix_runs_started_at", "started_at", "configuration_id", "duration_s", "num_results"),
        # A deleted run's link must never show another run.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("targets.id", ondelete="CASCADE"))
    commit_id: Mapped[int] = mapped_column(ForeignKey("commits.id", ondelete="CASCADE"))
    benchmark_set_id: Mapped[int] = mapped_column(ForeignKey("benchmark_sets.id"))
    configuration_id: Mapped[int] = mapped_column(ForeignKey("configurations.id"))
    environment_id: Mapped[int | None] = mapped_column(ForeignKey("environments.id"))
    protocol_id: Mapped[int] = mapped_column(ForeignKey("protocols.id"))
    superseded: Mapped[bool] = mapped_column(server_default=false())
    outcome: Mapped[Outcome]
    culprit: Mapped[Culprit | None]
    reason: Mapped[str]
    gates: Mapped[Json] = mapped_column(JsonText)
    inherited_from: Mapped[str | None]
    inherited_outcome: Mapped[Outcome | None]
    code_digest: Mapped[str | None]
    bridge: Mapped[bool]
    started_at: Mapped[datetime]
    duration_s: Mapped[float]
    num_results: Mapped[int]  # rows in sequence_results

    # `records.Figures`, all NULL where there are none.
    num_sequences: Mapped[int | None]
    num_tokens: Mapped[int | None]
    num_strict: Mapped[int | None]
    num_failed: Mapped[int | None]
    strict_pass_rate: Mapped[float | None]
    min_similarity: Mapped[float | None]
    p01_similarity: Mapped[float | None]
    median_similarity: Mapped[float | None]
    max_similarity: Mapped[float | None]
    worst_sequence: Mapped[str | None]
    seed_passed: Mapped[bool | None]
    max_packed_relative_l2: Mapped[float | None]
    max_unpacked_relative_l2: Mapped[float | None]
    unpacked_s: Mapped[float | None]
    packed_s: Mapped[float | None]

    # At the end, where a migration adds them without building the table anew.
    inherited_run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"))
    packed_outcome: Mapped[Outcome | None]
    unpacked_outcome: Mapped[Outcome | None]
    digest: Mapped[str | None]


class SequenceResultRow(Base):
    __tablename__ = "sequence_results"
    __table_args__ = ({"sqlite_with_rowid": False},)

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    sequence_index: Mapped[int] = mapped_column(primary_key=True)
    length: Mapped[int]
    truncated: Mapped[bool]
    status: Mapped[SequenceStatus]
    similarity: Mapped[float | None]
    packed_similarity: Mapped[float | None]
    unpacked_similarity: Mapped[float | None]
    relative_l2: Mapped[float | None]
    packed_relative_l2: Mapped[float | None]
    unpacked_relative_l2: Mapped[float | None]
    gain: Mapped[float | None]
    worst_residue_similarity: Mapped[float | None]
    p01_residue_similarity: Mapped[float | None]
    worst_residue: Mapped[int | None]
    max_abs_difference: Mapped[float | None]
    pack: Mapped[int | None]
    slot: Mapped[int | None]
    offset: Mapped[int | None]


class FailureRow(Base):
    __tablename__ = "failures"
    __table_args__ = (Index(None, "kind"),)

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str]
    message: Mapped[str]
    traceback: Mapped[str]
    log: Mapped[str]


class DocumentRow(Base):
    """Further evidence of a run: probes, layer and residue traces, noise, packs."""

    __tablename__ = "documents"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[Json] = mapped_column(JsonText)


class JudgementRow(Base):
    """A run's stored measures, judged again under another protocol."""

    __tablename__ = "judgements"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    protocol_id: Mapped[int] = mapped_column(ForeignKey("protocols.id"), primary_key=True)
    outcome: Mapped[Outcome]
    culprit: Mapped[Culprit]
    reason: Mapped[str]
    figures: Mapped[Json] = mapped_column(JsonText)
    gates: Mapped[Json] = mapped_column(JsonText)
    judged_at: Mapped[datetime]


class ChainLinkRow(Base):
    """One run's place in the history of its series: what was stored, in which order.

    `chain` digests the link before it and the run's own digest, so that a run that was changed,
    inserted or taken out later does not fit. A run that was deleted on purpose leaves its link.
    """

    __tablename__ = "chain_links"
    __table_args__ = (Index(None, "run_id", unique=True), {"sqlite_with_rowid": False})

    target_id: Mapped[int] = mapped_column(
        ForeignKey("targets.id", ondelete="CASCADE"), primary_key=True
    )
    benchmark_set_id: Mapped[int] = mapped_column(ForeignKey("benchmark_sets.id"), primary_key=True)
    configuration_id: Mapped[int] = mapped_column(ForeignKey("configurations.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int]  # no foreign key: it outlives its run
    digest: Mapped[str]
    chain: Mapped[str]
    removed_at: Mapped[datetime | None]


class BisectionRow(Base):
    __tablename__ = "bisections"
    __table_args__ = (Index(None, "target_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("targets.id", ondelete="CASCADE"))
    good: Mapped[str]
    bad: Mapped[str]
    benchmark: Mapped[str]
    gate: Mapped[str | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    first_bad: Mapped[str | None]
    conclusion: Mapped[str]


class BisectStepRow(Base):
    __tablename__ = "bisect_steps"
    __table_args__ = (Index(None, "run_id"),)

    bisection_id: Mapped[int] = mapped_column(
        ForeignKey("bisections.id", ondelete="CASCADE"), primary_key=True
    )
    step: Mapped[int] = mapped_column(primary_key=True)
    commit: Mapped[str]
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"))
    verdict: Mapped[str]
    reused: Mapped[bool]
    at: Mapped[datetime]


class HeartbeatRow(Base):
    __tablename__ = "heartbeats"

    host: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    message: Mapped[str]
    at: Mapped[datetime]
    num_queued: Mapped[int | None]
    exit_code: Mapped[int | None]
    finished_at: Mapped[datetime | None]
    cluster: Mapped[Json] = mapped_column(OptionalJsonText, nullable=True)


class LeaseRow(Base):
    """A lock that hosts share, and that frees itself when its owner dies."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    acquired_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class AcknowledgementRow(Base):
    __tablename__ = "acknowledgements"
    __table_args__ = (Index(None, "incident"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    incident: Mapped[str]
    who: Mapped[str]
    why: Mapped[str]
    scope: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    reopen_if_worse_than: Mapped[float | None]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]


class PolicyRow(Base):
    """A gate that informs for a target, and who said so; kept when it is taken back."""

    __tablename__ = "policies"
    __table_args__ = (Index(None, "target_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("targets.id", ondelete="CASCADE"))
    gate: Mapped[str]
    who: Mapped[str]
    why: Mapped[str]
    created_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]


class AlertRow(Base):
    __tablename__ = "alerts"
    __table_args__ = (Index(None, "target"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[AlertKind] = mapped_column(enum_type(AlertKind))
    target: Mapped[str]
    keys: Mapped[Json] = mapped_column(JsonText)
    summary: Mapped[str]
    facts: Mapped[Json] = mapped_column(JsonText)
    told: Mapped[bool]
    created_at: Mapped[datetime]


class DeliveryRow(Base):
    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("alert_id", "channel"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey("alerts.id", ondelete="CASCADE"))
    channel: Mapped[str]
    state: Mapped[DeliveryState] = mapped_column(enum_type(DeliveryState))
    attempts: Mapped[int]
    due_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    problem: Mapped[str]
