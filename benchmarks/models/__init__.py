"""What the four tables of `docs/models.md` are measured with; `benchmarks/table1.py` to `table4.py` run it.

=============  ============================================================================================
module         what it says
=============  ============================================================================================
``cohort``     the ICU demo as a device would hold it: rows, labels, hours of each patient, and the cuts
``learning``   one process that trains all devices: local, centralised, federated with any method, strategy
``scores``     AUROC, average precision, what severity is judged by, intervals over seeds and patients
``store``      units of work that are kept, so that an interrupted table goes on where it stopped
``shapes``     the exported graphs, and the first weights of each seed
``mixer``      a network with a dense mixer over time, tried for table 2
``known``      table 2, patients who took part
``program``    what the four programs have in common
``severity``   table 1
``worsening``  table 2
``attack``     table 3
``cost``       table 4
``plots``      learning curves, gain per patient, reliability
``tables``     the tables as Markdown
=============  ============================================================================================

The devices' own code does the work: rows by `samd_data`, epochs by the exported graph in the bare
interpreter (`samd_edge.runtime`), methods by `samd_edge.personalisation`, averages by Flower's strategies as
the server's loop calls them (`samd_server.strategies`). Only the wire and the second process are left out.
"""
