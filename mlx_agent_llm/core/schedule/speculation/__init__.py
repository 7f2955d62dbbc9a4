"""Drafts: tokens that running requests may go on with, which a step computes before anybody knows whether they do."""
