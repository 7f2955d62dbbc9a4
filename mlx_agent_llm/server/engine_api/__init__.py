"""The engine's own API: what the frameworks' classes speak when they are given a base_url."""
