"""Regular languages of numbers: ranges and multiples, digit by digit."""
