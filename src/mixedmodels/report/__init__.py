"""Presentation of fits: tables rendered as text, HTML, LaTeX and Markdown, and tidy frames."""
