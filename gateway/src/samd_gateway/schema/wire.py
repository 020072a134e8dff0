"""What came over the wire: messages, the newest of each kind, devices, and the commands that were sent.

Bodies are JSON text, as they came: a table has columns for what is searched or compared.
"""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, String, Table, Text

from samd_gateway.schema.base import metadata

meta = Table(
    "meta", metadata, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False)
)

# Every accepted message but heartbeats; its key is what drops duplicates. An id is the sender's own word, so
# it counts only beside the sender's name: nobody can suppress another's messages.
messages = Table(
    "messages",
    metadata,
    Column("device", String(80), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("boot", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("sent_at", Float, nullable=False),
    Column("body", Text, nullable=False),
    Index("messages_by_kind", "kind", "received_at"),
    Index("messages_by_device", "device", "kind", "received_at"),  # a patient's time line
)

devices = Table(
    "devices",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("reported", String(16)),
    Column("reported_at", Float),
    Column("boot", BigInteger),
    Column("connection", BigInteger),
    Column("seq", BigInteger),
    Column("boot_id", String(80)),
    Column("client_version", String(80)),
    Column("model_version", BigInteger),
    Column("first_heard", Float),
    Column("last_heard", Float),
    Column("online_since", Float),
    Column("interval_s", Float),
    Column("clock_offset_s", Float),  # its clock less ours, at its last live message
    Column("clock_synced", Boolean),
    Column("certificate_expires_at", Float),
    Column("last_data", Float),  # when an assessment last came
    Column("flagged", Text),  # why it is limited or not believed; null while all is well
    Column("flagged_at", Float),
)

boots = Table(
    "boots",
    metadata,
    Column("device", String(80), primary_key=True),
    Column("boot_id", String(80), primary_key=True),
    Column("first_seen", Float, nullable=False),
)

# The newest message of each kind from each sender, by (boot, seq).
latest = Table(
    "latest",
    metadata,
    Column("device", String(80), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("boot", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("sent_at", Float, nullable=False),
    Column("synced", Boolean, nullable=False),
    Column("body", Text, nullable=False),
)

commands = Table(
    "commands",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("device", String(80), nullable=False, index=True),
    Column("type", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("issued_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("status", String(16)),
    Column("reason", Text),
    Column("detail", Text),
    Column("answered_at", Float),
)
