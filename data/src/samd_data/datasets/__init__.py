"""Open data sets of real recordings, read into ``Recording`` and nothing else.

``open_dataset(path)`` looks at what lies there and picks the reader:

==============  ============================================================================  ===========
kind            what is looked for                                                            needs
==============  ============================================================================  ===========
"clif"          ``clif_vitals.parquet``                                                       pyarrow
"mimic-iv-ed"   ``vitalsign.csv[.gz]``, there or in ``ed/``                                   pandas
"mimic-iv"      ``chartevents.csv[.gz]``, there or in ``icu/``                                pandas
"recordings"    ``PATIENT.csv`` in the format of ``samd_data.table``, a folder or one file    nothing
==============  ============================================================================  ===========

pandas and pyarrow (the extra ``samd-data[datasets]``) are loaded when such a data set is opened, not before.
Nothing is changed on disk. Nothing is filled in: what the source does not say is missing. Both intensive-care
demos chart oxygen almost only while it is given, and the emergency demo neither oxygen nor consciousness: the
labels "all" (``severity``) have no class "none" in the former and no row in the latter.
"""

from samd_data.datasets.base import Dataset, Stay
from samd_data.datasets.catalog import Entry, catalog
from samd_data.datasets.fetching import clif_demo
from samd_data.datasets.opening import open_dataset

__all__ = ["Dataset", "Entry", "Stay", "catalog", "clif_demo", "open_dataset"]
