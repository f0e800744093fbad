"""Glue between an app and frameworks."""
