"""A dashboard for Grafana and a scrape configuration for Prometheus, as files of this package."""

from importlib.resources import files

DASHBOARD = "samd-gateway.json"

SCRAPE = """# for prometheus.yml; a gateway with users wants a token with the scope "read"
scrape_configs:
  - job_name: samd-gateway
    scrape_interval: 15s
    metrics_path: /metrics
    # authorization: {credentials_file: /etc/prometheus/samd.token}
    static_configs:
      - targets: ["127.0.0.1:8080"]
"""


def dashboard() -> str:
    """The dashboard as Grafana imports it."""
    return files(__name__).joinpath(DASHBOARD).read_text("utf-8")
