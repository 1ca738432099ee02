"""Queues that ship."""
