"""Brokers that ship with dpcore."""
