"""The chat page: static files, which work without a network beyond the server."""
