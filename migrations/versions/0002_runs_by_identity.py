"""Skipped runs point at the run that measured their result, and runs are chained

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OUTCOMES = ("passed", "failed", "error", "skipped", "not_run")

# The newest run that measured the commit which a skipped run names.
MEASURED_RUN = """
UPDATE runs SET inherited_run_id = (
    SELECT max(measured.id)
    FROM runs AS measured JOIN commits ON commits.id = measured.commit_id
    WHERE measured.target_id = runs.target_id
      AND commits.hash = runs.inherited_from
      AND measured.benchmark_set_id = runs.benchmark_set_id
      AND measured.outcome IN ('passed', 'failed')
      {conditions}
)
WHERE outcome = 'skipped' AND inherited_from IS NOT NULL AND inherited_run_id IS NULL
"""
SAME_CONFIGURATION = "AND measured.configuration_id = runs.configuration_id"
SAME_OUTCOME = "AND measured.outcome = runs.inherited_outcome"


def upgrade() -> None:
    sequence = _last_run_id()
    # SQLite builds the table anew, without its AUTOINCREMENT unless it is told.
    with op.batch_alter_table("runs", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.add_column(sa.Column("inherited_run_id", sa.Integer(), nullable=True))
        for name in ("packed_outcome", "unpacked_outcome"):
            kind = sa.Enum(*OUTCOMES, name="outcome", native_enum=False, length=16)
            batch.add_column(sa.Column(name, kind, nullable=True))
        batch.add_column(sa.Column("digest", sa.Text(), nullable=True))
        batch.create_foreign_key(
            op.f("fk_runs_inherited_run_id_runs"),
            "runs",
            ["inherited_run_id"],
            ["id"],
            ondelete="SET NULL",
        )
    _keep_last_run_id(sequence)
    op.create_index(op.f("ix_runs_inherited_run_id"), "runs", ["inherited_run_id"])
    waiting = sa.text("inherited_from IS NOT NULL AND inherited_run_id IS NULL")
    op.create_index(
        "ix_runs_waiting",
        "runs",
        ["inherited_from"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    # The best match first; what it finds is left alone by the next.
    for conditions in (
        f"{SAME_CONFIGURATION} {SAME_OUTCOME}",
        SAME_CONFIGURATION,
        SAME_OUTCOME,
        "",
    ):
        op.execute(MEASURED_RUN.format(conditions=conditions))

    for name in ("packages", "parts"):
        op.add_column("environments", sa.Column(name, sa.Text(), nullable=True))

    op.create_table(
        "begun",
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("commit", sa.Text(), nullable=False),
        sa.Column("setup", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["targets.id"],
            name=op.f("fk_begun_target_id_targets"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("target_id", "commit", "setup", name=op.f("pk_begun")),
    )
    op.create_table(
        "chain_links",
        sa.Column("target_id", sa.Integer(), nullable=False),
        sa.Column("benchmark_set_id", sa.Integer(), nullable=False),
        sa.Column("configuration_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["targets.id"],
            name=op.f("fk_chain_links_target_id_targets"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["benchmark_set_id"],
            ["benchmark_sets.id"],
            name=op.f("fk_chain_links_benchmark_set_id_benchmark_sets"),
        ),
        sa.ForeignKeyConstraint(
            ["configuration_id"],
            ["configurations.id"],
            name=op.f("fk_chain_links_configuration_id_configurations"),
        ),
        sa.PrimaryKeyConstraint(
            "target_id",
            "benchmark_set_id",
            "configuration_id",
            "place",
            name=op.f("pk_chain_links"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_chain_links_run_id"), "chain_links", ["run_id"], unique=True)


def downgrade() -> None:
    op.drop_table("chain_links")
    op.drop_table("begun")
    for name in ("parts", "packages"):
        op.drop_column("environments", name)
    op.drop_index("ix_runs_waiting", "runs")
    op.drop_index(op.f("ix_runs_inherited_run_id"), "runs")
    sequence = _last_run_id()
    with op.batch_alter_table("runs", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_constraint(op.f("fk_runs_inherited_run_id_runs"), type_="foreignkey")
        for name in ("digest", "unpacked_outcome", "packed_outcome", "inherited_run_id"):
            batch.drop_column(name)
    _keep_last_run_id(sequence)


def _last_run_id() -> int | None:
    """The last id that SQLite gave to a run, which may be deleted by now."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return None
    query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'runs'")
    return connection.execute(query).scalar()


def _keep_last_run_id(sequence: int | None) -> None:
    """Go on counting there: a deleted run's id is never given to another."""
    if sequence is None:
        return
    connection = op.get_bind()
    connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = 'runs'"))
    connection.execute(
        sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES ('runs', :seq)"), {"seq": sequence}
    )
