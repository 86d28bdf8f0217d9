"""Style sheet of the report, for screen and paper."""

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif;
  color: #1f2328; background: #fff; max-width: 1240px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin: 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d8dee4;
  padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
ul { padding-left: 1.2rem; }
.faint { color: #656d76; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .22rem .5rem;
  border-bottom: 1px solid #eaeef2; }
th { font-weight: 600; border-bottom: 1px solid #afb8c1; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
small { display: block; color: #656d76; font-size: 11px; line-height: 1.35; }
td.words:first-child { white-space: nowrap; }
.wide td.words:first-child { white-space: normal; }
.wide table { table-layout: fixed; width: 100%; }
.wide td { overflow-wrap: anywhere; }
code { font-size: .95em; }
.best { font-weight: 700; }
.met { color: #1a7f37; }
.missed { color: #cf222e; font-weight: 600; }
svg { display: block; margin: .6rem 0; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  table { font-size: 7.5pt; }
  small { font-size: 6.5pt; }
  h2 { margin-top: 0; }
  .wide table { font-size: 7pt; margin: .3rem 0; }
  .wide th, .wide td { padding: .08rem .4rem; }
  .wide h3 { break-before: page; }
  .scroll { overflow: visible; }
  section.page { break-before: page; }
  h2, h3 { break-after: avoid; }
  tr, svg { break-inside: avoid; }
  thead { display: table-header-group; }
}
"""
