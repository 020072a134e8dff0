"""A configuration for Mosquitto: what it listens on (`conf`), who may do what (`acl`), certificates (`pki`),
and how all of it comes into a folder (`folder`).
"""
