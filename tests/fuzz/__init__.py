"""Whatever arrives, drawn at random: see the README of this folder."""
