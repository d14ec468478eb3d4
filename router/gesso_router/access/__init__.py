"""Who may ask for images, how many of them, and how the queue is shared between those who do."""
