"""Prices of choices: what is known of a candidate as numbers, features of that, and models.

This package knows only `arch`: passes and schedules both ask it. No TVM here.
"""
