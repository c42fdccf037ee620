"""Heartbeats say which hosts of a cluster their runner measures on

Revision: 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("heartbeats", sa.Column("cluster", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("heartbeats", "cluster")
