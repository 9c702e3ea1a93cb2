"""`larrey demo`: the whole product on one machine, on real hospital data, in about a minute."""
