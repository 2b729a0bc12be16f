"""The command line.

Runs in: supervisor.
"""
