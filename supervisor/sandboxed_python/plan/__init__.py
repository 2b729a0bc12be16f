"""What the kernel will be told: made from a policy and from what this kernel can do, by pure functions.

Runs in: supervisor.
"""
