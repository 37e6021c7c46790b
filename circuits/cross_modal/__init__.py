"""Circuits of two towers at once: how a picture and its caption come to match."""
