"""What was denied, written down.

Runs in: supervisor.
"""
