"""Schedules of our own for the kernels that matter on CPUs, and the layouts that they want."""
