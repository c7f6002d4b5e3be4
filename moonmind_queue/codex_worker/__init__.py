"""The worker for coding agents: its command, its start, and the kind ``codex_exec``."""
