"""Relabeling of series, with Prometheus's rules.

config         rules as YAML, validated as upstream does
rules          what a rule does to one label set
letter_case    Go's lower and upper case
outcomes       what became of label runs seen before, as tables for the kernels
rewriting      a write request through the rules: known series by kernel, new ones by rule
"""
