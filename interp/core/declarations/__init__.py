"""Declarations as plain data: fields of specifications, and figures."""
