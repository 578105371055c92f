"""What a worker records of itself and observes of the server: whether it lives, and what holds it up."""
