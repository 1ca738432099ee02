"""Triggers that ship."""
