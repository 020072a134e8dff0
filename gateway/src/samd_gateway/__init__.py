"""Program 2, the MQTT gateway: fleet, runs and their admission, alerts, model files, HTTP API.

It knows the wire (`samd_protocol`) and neither the device, nor the server, nor the clinical vocabulary: it
shows scores and never computes one. From the broker to a page: `link` receives, `intake` checks, `ingest`
queues and acknowledges, `recorder` writes, `states` and `queries` read, `api_*` answer. Runs: `admission`
decides, `coordinator` acts, `runs_table` keeps.
"""

__version__ = "0.1.0"
