"""Published policies of placing a prompt, and the two that a plain load balancer offers."""
