"""Stores in which several beats agree who sends."""
