"""Zero-shot accuracy, exposure, effective robustness and the seen/held-out trade-off."""
