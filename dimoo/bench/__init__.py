"""Sampling speed, measured together with quality: methods against the released loop, in one run."""
