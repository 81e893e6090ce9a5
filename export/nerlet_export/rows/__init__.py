"""Labelled files of other tools to rows: one module a format, and what they share."""
