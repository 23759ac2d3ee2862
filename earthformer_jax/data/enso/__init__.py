"""Monthly sea-surface temperature with a Nino3.4 index: El Nino."""
