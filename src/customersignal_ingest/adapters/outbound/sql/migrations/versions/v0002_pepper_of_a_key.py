"""Which pepper a key's digest was made with, so that one can see when an old pepper is no longer needed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; of keys that were made before, nobody knows."""
    op.add_column("api_keys", sa.Column("pepper_id", sa.String))
