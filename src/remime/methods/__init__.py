"""Reenactment methods behind one interface."""
