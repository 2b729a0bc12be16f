"""Answers to seccomp notifications: what neither Landlock nor a static filter can say.

Runs in: supervisor.
"""
