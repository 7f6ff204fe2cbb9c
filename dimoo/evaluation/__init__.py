"""Judges, suites and reports: how good a model is, with confidence intervals, a ceiling and a floor."""
