"""The ward: one card a patient, the time line of each, and what people do at the bedside.

- `answers`: the shapes that the API and the pages show.
- `risk`: in which order the cards stand; pure.
- `why`: why the rule and the model differ; pure.
- `cards`: from the tables to cards.
- `trend`: the score of the last day, thinned.
- `timeline`: the past of one patient.
- `admissions`: who is admitted, and what the device answered.
- `service`: all of them behind one object; sends commands.
"""
