"""Questions asked of fits: one per file, each a function of fits that returns a small frozen table."""
