"""Plasmon beside other ways to share values between processes: the same workloads against all, in one run."""
