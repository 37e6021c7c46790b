"""Training distributions: settings, captions, base sets, subsampling, manifests."""
