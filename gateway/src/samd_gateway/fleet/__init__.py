"""Thousands of devices: filtered pages of them, tags, saved views, and actions on many at once."""
