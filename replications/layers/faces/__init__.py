"""Networks, heads and verifiers that face recognisers share."""
