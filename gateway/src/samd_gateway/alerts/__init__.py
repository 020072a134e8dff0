"""Alerts: what devices raise and what this gateway raises of their silence; who took notice; the ladder and
the notifications of those that nobody took notice of.

- `answers`: the shapes that the API and the pages show.
- `store`: rows of the table `alerts`, and its history; every change goes through here.
- `recorder`: from a device's message to its row, in the transaction of the message.
- `desk`: what people do: acknowledge, pause, resume, escalate.
- `silence`: when a device that should report does not.
- `ladder`: when an alert that nobody acknowledged goes a step up.
- `clock`: the thread that does what time asks for, on the gateway that leads.
- `outbox`, `notifier`, `webhook`, `email`, `broker_channel`: who is told, until they have been.
"""
