"""Load and prompts to simulate with: recorded where they are at hand, else the project's own."""
