"""Regular and context-free languages: no JSON, no tokens."""
