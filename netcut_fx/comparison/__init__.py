"""A bundle beside other runtimes on one network: each in a pinned process of its own, rounds in turn, one answer."""
