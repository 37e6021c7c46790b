"""Zero-shot accuracy and what stands behind it: class sets, exposure, robustness, trade-off."""
