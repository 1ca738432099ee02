"""dpcore: the core of an event-driven data platform, made of plugins the way pytest is."""
