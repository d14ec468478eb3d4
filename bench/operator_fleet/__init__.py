"""What the operator's bench puts in the place of pods: servers of the contract on addresses of their own."""
