"""The kernel's interfaces: numbers, system calls, Landlock, seccomp, processes, and what this kernel can do.

Runs in: both.
"""
