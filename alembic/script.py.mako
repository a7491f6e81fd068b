"""${message}"""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
workers_go_on = True  # those of the version before, while this step is taken and after it


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
