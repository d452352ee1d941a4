"""How results are shown: HTML pages, tables, and the look of figures."""
