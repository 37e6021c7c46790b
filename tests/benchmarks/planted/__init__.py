"""Planted models that are trained: ResNets, and transformers by interchange."""
