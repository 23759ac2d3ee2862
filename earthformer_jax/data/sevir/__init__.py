"""SEVIR radar: catalog, files, windows, and a synthetic radar in their place."""
