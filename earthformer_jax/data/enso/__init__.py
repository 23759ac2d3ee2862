"""El Nino: monthly sea-surface temperature with a Nino3.4 index."""
