"""A neural-network engine whose every kernel is Python that a person can read, change and trust."""
