"""The tables of the first release: messages, devices, commands, runs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:

    op.create_table(
        "boots",
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("boot_id", sa.String(80), nullable=False),
        sa.Column("first_seen", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("device", "boot_id"),
    )
    op.create_table(
        "commands",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("issued_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("status", sa.String(16)),
        sa.Column("reason", sa.Text()),
        sa.Column("detail", sa.Text()),
        sa.Column("answered_at", sa.Float()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_commands_device", "commands", ["device"])
    op.create_table(
        "devices",
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("reported", sa.String(16)),
        sa.Column("reported_at", sa.Float()),
        sa.Column("boot", sa.BigInteger()),
        sa.Column("connection", sa.BigInteger()),
        sa.Column("seq", sa.BigInteger()),
        sa.Column("boot_id", sa.String(80)),
        sa.Column("client_version", sa.String(80)),
        sa.Column("model_version", sa.BigInteger()),
        sa.Column("first_heard", sa.Float()),
        sa.Column("last_heard", sa.Float()),
        sa.Column("online_since", sa.Float()),
        sa.Column("interval_s", sa.Float()),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "latest",
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("sent_at", sa.Float(), nullable=False),
        sa.Column("synced", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", "kind"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("taken_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "messages",
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("sent_at", sa.Float(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", "id"),
    )
    op.create_index("messages_by_kind", "messages", ["kind", "received_at"])
    op.create_table(
        "meta",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "participants",
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("command", sa.String(64), nullable=False),
        sa.Column("admitted", sa.Boolean(), nullable=False),
        sa.Column("told", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run", "device"),
    )
    op.create_table(
        "rounds",
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "round"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("graph_sha256", sa.String(64), nullable=False),
        sa.Column("start_version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("quorum_at", sa.Float()),
        sa.Column("handed_over_at", sa.Float()),
        sa.Column("ordered_at", sa.Float()),
        sa.Column("stop_requested_at", sa.Float()),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float()),
        sa.Column("status", sa.Text()),
        sa.Column("model_version", sa.BigInteger()),
        sa.Column("released", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
    )
