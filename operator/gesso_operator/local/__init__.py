"""A fleet of processes on one machine: starts them, keeps them running, ends them."""
