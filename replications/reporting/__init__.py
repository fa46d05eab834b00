"""From records to verdicts, tables, plots and a page: a pure function of ``results/<tier>`` and the
papers.
"""
