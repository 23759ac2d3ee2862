"""Earthformer AR: codes of frames, forecast one after the other."""
