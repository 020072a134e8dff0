"""Who may do what: actors and permissions, users, sessions, tokens, and the audit of every change."""
