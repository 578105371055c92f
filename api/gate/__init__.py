"""What a request passes before its route: gateway, body, place; and how it is refused."""
