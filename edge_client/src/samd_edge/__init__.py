"""Program 1, the device at the bedside: readings in, assessments and alerts out, training when asked.

====================================  ======================================================================
module                                what it is
====================================  ======================================================================
``agent``                             one device: the steps from start to end, in one loop
``admission``                         one patient: reading, assessment, store, alert, outbox
``assessment``, ``runtime``           rule and model side by side; the one place that picks an interpreter
``forecast``, ``forecaster``          deterioration: from hours to an answer; asked at each full hour
``alerts``                            when an alert is raised, escalated, cleared (a pure function)
``sources``, ``clock``                where readings come from, and whose time they are in
``store``, ``device_db``, ``database``  a SQLite file for each admission, one for the device; opening them
``outbox``, ``link``, ``presence``    what waits to be sent; the connection; state, configuration, heartbeat
``heartbeat``, ``certificate``        the device's own health; when its certificate ends
``commands``, ``orders``              each command once; what each of them does, and why it is refused
``participation``, ``trainer_host``   the part in a run; the trainer as a process
``trainer``                           the trainer itself: tasks on stdin, updates on stdout, no network
``models``, ``model_fetch``           the models held, by version; fetching a released one
``config``, ``run_command``, ``cli``  settings, and the command ``samd-edge``
====================================  ======================================================================

The gateway and the server are known only by what crosses the wire: nothing of theirs is imported, and no code
that arrives from the network is run. Importing the package loads nothing.
"""
