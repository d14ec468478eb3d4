"""What every part of Gesso shares: the API model, the wire contracts, plans and profiles."""
