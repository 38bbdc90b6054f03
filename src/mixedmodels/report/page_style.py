"""The look of the report page: one style sheet, readable on a desk and on a phone, and in print."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #1c2733;
  background: #fff; margin: 0 auto; max-width: 62rem; padding: 1.2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .6rem 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 2px solid #d9e3ee; padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
code { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .92em;
  overflow-wrap: anywhere; }
p, li { max-width: 46rem; }
nav { font-size: .92rem; margin: .8rem 0; }
nav a { margin-right: 1rem; color: #2f5d8a; white-space: nowrap; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
.head { font-weight: 600; margin: 1rem 0 -.2rem; }
summary { cursor: pointer; }
th, td { padding: .28rem .8rem .28rem 0; border-bottom: 1px solid #e4eaf0; text-align: left;
  white-space: nowrap; }
th.r, td.r { text-align: right; }
thead th { border-bottom: 2px solid #8a98a6; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: .8rem 0; padding: 0; list-style: none; }
.facts li { min-width: 7rem; }
.facts b { display: block; font-size: 1.15rem; }
.note { border-left: 4px solid #d9a441; background: #fdf7ea; padding: .5rem .9rem; margin: .5rem 0;
  max-width: 46rem; }
.good { border-left-color: #5b9a68; background: #eef6f0; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: flex-start; }
figure { margin: 0; max-width: 100%; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; color: #4a5866; max-width: 27rem; }
.small { font-size: .9rem; color: #4a5866; }
@media (max-width: 32rem) {
  body { padding: .8rem .9rem 3rem; }
  ul { padding-left: 1.1rem; }
  table { font-size: .86rem; }
  th, td { padding-right: .55rem; }
}
@media print { nav { display: none; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""
