"""What an invocation replays, and the schedule that fired it. Owner: services/invocations.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("ALTER TABLE invocations ADD COLUMN replay_of uuid, ADD COLUMN schedule_id uuid")


def downgrade() -> None:
    """Take back."""
    op.execute("ALTER TABLE invocations DROP COLUMN replay_of, DROP COLUMN schedule_id")
