"""The report of a run: one self-contained HTML file, made from what lies in the run's folder. Imports no torch.

facts.py      what the folder tells: settings, events, what stands
pictures.py   previews as small data URIs, within a budget of bytes
svg.py        charts
page.py       all of it through `template.html`, everything escaped
"""

from adapt.report.facts import Facts, facts_of
from adapt.report.page import NAME, render, write_report

__all__ = ["NAME", "Facts", "facts_of", "render", "write_report"]
