"""Initial tables

Revision: 0001, after .
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "acknowledgements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reopen_if_worse_than", sa.Double(), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_acknowledgements")),
    )
    op.create_index(op.f("ix_acknowledgements_incident"), "acknowledgements", ["incident"])

    op.create_table(
        "benchmark_sets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_benchmark_sets")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_benchmark_sets_name_version")),
    )
    op.create_table(
        "configurations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.Column("weights_digest", sa.Text(), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("token_budget", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_configurations")),
        sa.UniqueConstraint("digest", name=op.f("uq_configurations_digest")),
    )
    op.create_table(
        "environments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("platform", sa.Text(), nullable=False),
        sa.Column("python", sa.Text(), nullable=False),
        sa.Column("torch", sa.Text(), nullable=False),
        sa.Column("cuda", sa.Text(), nullable=True),
        sa.Column("gpu", sa.Text(), nullable=True),
        sa.Column("driver", sa.Text(), nullable=True),
        sa.Column("flash_attn", sa.Text(), nullable=True),
        sa.Column("fair_esm", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environments")),
        sa.UniqueConstraint("digest", name=op.f("uq_environments_digest")),
    )
    op.create_table(
        "heartbeats",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("num_queued", sa.Integer(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("host", "target", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("acquired_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "protocols",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_protocols")),
        sa.UniqueConstraint("digest", name=op.f("uq_protocols_digest")),
    )
    op.create_table(
        "targets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("package", sa.Text(), nullable=True),
        sa.Column("paths", sa.Text(), nullable=False),
        sa.Column("branch", sa.Text(), nullable=True),
        sa.Column("requirements", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_targets")),
        sa.UniqueConstraint("name", name=op.f("uq_targets_name")),
    )
    op.create_table(
        "benchmark_sequences",
        sa.Column("benchmark_set_id", sa.Integer(), nullable=False),
        sa.Column("sequence_index", sa.Integer(), nullable=False),
        sa.Column("sequence_id", sa.Text(), nullable=False),
        sa.Column("residues", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["benchmark_set_id"],
            ["benchmark_sets.id"],
            name=op.f("fk_benchmark_sequences_benchmark_set_id_benchmark_sets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "benchmark_set_id", "sequence_index", name=op.f("pk_benchmark_sequences")
        ),
        sa.UniqueConstraint(
            "benchmark_set_id",
            "sequence_id",
            name=op.f("uq_benchmark_sequences_benchmark_set_id_sequence_id"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "bisections",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("good", sa.Text(), nullable=False),
        sa.Column("bad", sa.Text(), nullable=False),
        sa.Column("benchmark", sa.Text(), nullable=False),
        sa.Column("gate", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_bad", sa.Text(), nullable=True),
        sa.Column("conclusion", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["targets.id"],
            name=op.f("fk_bisections_target_id_targets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bisections")),
    )
    op.create_index(op.f("ix_bisections_target_id"), "bisections", ["target_id"])

    op.create_table(
        "commits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("parents", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("authored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("on_branch", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["targets.id"],
            name=op.f("fk_commits_target_id_targets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commits")),
        sa.UniqueConstraint("target_id", "hash", name=op.f("uq_commits_target_id_hash")),
    )
    op.create_index(op.f("ix_commits_hash"), "commits", ["hash"])
    op.create_index(
        op.f("ix_commits_target_id_position_committed_at"),
        "commits",
        ["target_id", "position", "committed_at"],
    )

    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("commit_id", sa.Integer(), nullable=False),
        sa.Column("benchmark_set_id", sa.Integer(), nullable=False),
        sa.Column("configuration_id", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.Integer(), nullable=True),
        sa.Column("protocol_id", sa.Integer(), nullable=False),
        sa.Column("superseded", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column(
            "outcome",
            sa.Enum(
                "passed",
                "failed",
                "error",
                "skipped",
                "not_run",
                name="outcome",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "culprit",
            sa.Enum(
                "none", "packed", "unpacked", "both", name="culprit", native_enum=False, length=16
            ),
            nullable=True,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("gates", sa.Text(), nullable=False),
        sa.Column("inherited_from", sa.Text(), nullable=True),
        sa.Column(
            "inherited_outcome",
            sa.Enum(
                "passed",
                "failed",
                "error",
                "skipped",
                "not_run",
                name="outcome",
                native_enum=False,
                length=16,
            ),
            nullable=True,
        ),
        sa.Column("code_digest", sa.Text(), nullable=True),
        sa.Column("bridge", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("num_results", sa.Integer(), nullable=False),
        sa.Column("num_sequences", sa.Integer(), nullable=True),
        sa.Column("num_tokens", sa.Integer(), nullable=True),
        sa.Column("num_strict", sa.Integer(), nullable=True),
        sa.Column("num_failed", sa.Integer(), nullable=True),
        sa.Column("strict_pass_rate", sa.Double(), nullable=True),
        sa.Column("min_similarity", sa.Double(), nullable=True),
        sa.Column("p01_similarity", sa.Double(), nullable=True),
        sa.Column("median_similarity", sa.Double(), nullable=True),
        sa.Column("max_similarity", sa.Double(), nullable=True),
        sa.Column("worst_sequence", sa.Text(), nullable=True),
        sa.Column("seed_passed", sa.Boolean(), nullable=True),
        sa.Column("max_packed_relative_l2", sa.Double(), nullable=True),
        sa.Column("max_unpacked_relative_l2", sa.Double(), nullable=True),
        sa.Column("unpacked_s", sa.Double(), nullable=True),
        sa.Column("packed_s", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["benchmark_set_id"],
            ["benchmark_sets.id"],
            name=op.f("fk_runs_benchmark_set_id_benchmark_sets"),
        ),
        sa.ForeignKeyConstraint(
            ["commit_id"],
            ["commits.id"],
            name=op.f("fk_runs_commit_id_commits"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["configuration_id"],
            ["configurations.id"],
            name=op.f("fk_runs_configuration_id_configurations"),
        ),
        sa.ForeignKeyConstraint(
            ["environment_id"],
            ["environments.id"],
            name=op.f("fk_runs_environment_id_environments"),
        ),
        sa.ForeignKeyConstraint(
            ["protocol_id"], ["protocols.id"], name=op.f("fk_runs_protocol_id_protocols")
        ),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["targets.id"],
            name=op.f("fk_runs_target_id_targets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_runs_commit_id"), "runs", ["commit_id"])
    op.create_index(
        op.f("ix_runs_configuration_id_environment_id"),
        "runs",
        ["configuration_id", "environment_id"],
    )
    op.create_index(
        "ix_runs_series",
        "runs",
        [
            "target_id",
            "superseded",
            "benchmark_set_id",
            "configuration_id",
            "commit_id",
            "outcome",
            "inherited_outcome",
        ],
    )
    op.create_index(
        "ix_runs_started_at",
        "runs",
        ["started_at", "configuration_id", "duration_s", "num_results"],
    )
    op.create_index(op.f("ix_runs_target_id_code_digest"), "runs", ["target_id", "code_digest"])
    op.create_index(
        "uq_runs_current",
        "runs",
        ["commit_id", "benchmark_set_id", "configuration_id"],
        unique=True,
        sqlite_where=sa.text("superseded = 0"),
        postgresql_where=sa.text("NOT superseded"),
    )

    op.create_table(
        "bisect_steps",
        sa.Column("bisection_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("commit", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["bisection_id"],
            ["bisections.id"],
            name=op.f("fk_bisect_steps_bisection_id_bisections"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_bisect_steps_run_id_runs"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("bisection_id", "step", name=op.f("pk_bisect_steps")),
    )
    op.create_index(op.f("ix_bisect_steps_run_id"), "bisect_steps", ["run_id"])

    op.create_table(
        "documents",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_documents_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "name", name=op.f("pk_documents")),
    )
    op.create_table(
        "failures",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("traceback", sa.Text(), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_failures_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_failures")),
    )
    op.create_index(op.f("ix_failures_kind"), "failures", ["kind"])

    op.create_table(
        "judgements",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("protocol_id", sa.Integer(), nullable=False),
        sa.Column(
            "outcome",
            sa.Enum(
                "passed",
                "failed",
                "error",
                "skipped",
                "not_run",
                name="outcome",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column(
            "culprit",
            sa.Enum(
                "none", "packed", "unpacked", "both", name="culprit", native_enum=False, length=16
            ),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("gates", sa.Text(), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["protocol_id"], ["protocols.id"], name=op.f("fk_judgements_protocol_id_protocols")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_judgements_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "protocol_id", name=op.f("pk_judgements")),
    )
    op.create_table(
        "sequence_results",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("sequence_index", sa.Integer(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "ok",
                "not_finite",
                "lost",
                "doubled",
                name="sequencestatus",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("similarity", sa.Double(), nullable=True),
        sa.Column("packed_similarity", sa.Double(), nullable=True),
        sa.Column("unpacked_similarity", sa.Double(), nullable=True),
        sa.Column("relative_l2", sa.Double(), nullable=True),
        sa.Column("packed_relative_l2", sa.Double(), nullable=True),
        sa.Column("unpacked_relative_l2", sa.Double(), nullable=True),
        sa.Column("gain", sa.Double(), nullable=True),
        sa.Column("worst_residue_similarity", sa.Double(), nullable=True),
        sa.Column("p01_residue_similarity", sa.Double(), nullable=True),
        sa.Column("worst_residue", sa.Integer(), nullable=True),
        sa.Column("max_abs_difference", sa.Double(), nullable=True),
        sa.Column("pack", sa.Integer(), nullable=True),
        sa.Column("slot", sa.Integer(), nullable=True),
        sa.Column("offset", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["runs.id"],
            name=op.f("fk_sequence_results_run_id_runs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "sequence_index", name=op.f("pk_sequence_results")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("sequence_results")
    op.drop_table("judgements")
    op.drop_table("failures")
    op.drop_table("documents")
    op.drop_table("bisect_steps")
    op.drop_table("runs")
    op.drop_table("commits")
    op.drop_table("bisections")
    op.drop_table("benchmark_sequences")
    op.drop_table("targets")
    op.drop_table("protocols")
    op.drop_table("leases")
    op.drop_table("heartbeats")
    op.drop_table("environments")
    op.drop_table("configurations")
    op.drop_table("benchmark_sets")
    op.drop_table("acknowledgements")
