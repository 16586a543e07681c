"""Many networks, many deadlines: which network, cut where, is the most accurate that answers in time."""
