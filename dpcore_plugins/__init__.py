"""The adapters that ship with dpcore."""
