"""Prometheus metrics of one gateway, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """What is counted. Labels are of small fixed sets: kinds of messages and reasons, never names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter(
            "samd_gateway_messages", "Messages committed to the database", ["kind"], registry=self.registry
        )
        self.duplicates = Counter(
            "samd_gateway_duplicates", "Messages that were there already", registry=self.registry
        )
        self.dropped = Counter(
            "samd_gateway_dropped", "Messages that could not be accepted", ["reason"], registry=self.registry
        )
        self.write_errors = Counter(
            "samd_gateway_write_errors", "Failed transactions, tried again", registry=self.registry
        )
        self.batch_size = Histogram(
            "samd_gateway_batch_messages",
            "Messages in one transaction",
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "samd_gateway_commit_seconds",
            "Duration of one transaction",
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "samd_gateway_queue_messages", "Received and not yet committed", registry=self.registry
        )
        self.broker_connected = Gauge(
            "samd_gateway_broker_connected", "1 while connected to the broker", registry=self.registry
        )
        self.devices = Gauge(
            "samd_gateway_devices", "Devices by derived state", ["state"], registry=self.registry
        )
        self.event_clients = Gauge(
            "samd_gateway_event_clients", "Readers of /api/events", registry=self.registry
        )
        self.event_clients_dropped = Counter(
            "samd_gateway_event_clients_dropped", "Readers that were too slow", registry=self.registry
        )
        self.runs = Counter("samd_gateway_runs", "Runs begun", registry=self.registry)
        self.lag_seconds = Histogram(
            "samd_gateway_lag_seconds",
            "From reception to commit, of the oldest message of a transaction",
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.flagged = Gauge(
            "samd_gateway_devices_flagged",
            "Devices that are limited or not believed in some point",
            registry=self.registry,
        )
        self.alerts = Gauge(
            "samd_gateway_alerts_active", "Open alerts", ["acknowledged"], registry=self.registry
        )
        self.notifications_pending = Gauge(
            "samd_gateway_notifications_pending", "Notifications to deliver", registry=self.registry
        )
        self.leading = Gauge(
            "samd_gateway_leading",
            "1 while this gateway does what one alone may do",
            registry=self.registry,
        )
        self.runs_active = Gauge("samd_gateway_runs_active", "Runs that go on", registry=self.registry)
        self.database_bytes = Gauge(
            "samd_gateway_database_bytes", "Size of the database", registry=self.registry
        )

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)
