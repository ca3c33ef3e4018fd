"""A catalogue as a map: every item a point, items with like attributes beside each other."""
