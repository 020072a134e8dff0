"""Runs that begin by the clock: when (`times`), what is kept (`service`), and who begins them (`firing`)."""
