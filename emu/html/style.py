"""How a fragment looks. It stands in pages of others, light or dark: text keeps their colour, and what is set off has a tint
that lets their background through."""

from typing import Final

_COLOURS: Final = {
    "ram": "rgba(46,160,67,.30)",
    "reserved": "rgba(128,128,128,.32)",
    "tables": "rgba(56,139,253,.32)",
    "bad": "rgba(248,81,73,.28)",
    "persistent": "rgba(163,113,247,.32)",
    "unknown": "rgba(210,153,34,.34)",
    "good": "rgba(46,160,67,.25)",
    "entry": "rgba(56,139,253,.20)",
}

# The class of the output is said with each rule, twice where a notebook has rules of its own for tables.
STYLE: Final = (
    """
.pvhb-output{color:inherit;font-size:13px;line-height:1.45;max-width:100%}
.pvhb-output h3{font-size:1.15em;font-weight:600;margin:.2em 0 .5em}
.pvhb-output p{margin:.3em 0}
.pvhb-output code{font-family:var(--jp-code-font-family,ui-monospace,SFMono-Regular,Menlo,Consolas,monospace);\
font-size:12px;color:inherit;background:none;padding:0;white-space:pre}
.pvhb-output details{margin:.4em 0}
.pvhb-output summary{cursor:pointer;font-weight:600}
.pvhb-output .pvhb-wide{overflow-x:auto;margin:.5em 0 .8em}
.pvhb-output.pvhb-output table{border-collapse:collapse;margin:0;table-layout:auto;font-size:12px;color:inherit;border:0}
.pvhb-output.pvhb-output caption{text-align:left;caption-side:top;font-weight:600;padding:.2em 0;color:inherit;\
white-space:nowrap}
.pvhb-output.pvhb-output tr{background:none}
.pvhb-output.pvhb-output th,.pvhb-output.pvhb-output td{text-align:left;vertical-align:top;padding:2px 8px;\
border:0 solid rgba(128,128,128,.35);border-bottom-width:1px;white-space:nowrap;color:inherit;max-width:none}
.pvhb-output.pvhb-output thead th{vertical-align:bottom;border-bottom-width:2px;font-weight:600}
.pvhb-output.pvhb-output tbody th{font-weight:600}
.pvhb-output.pvhb-output td.pvhb-prose{white-space:normal;min-width:16em}
.pvhb-output.pvhb-output .pvhb-bits th,.pvhb-output.pvhb-output .pvhb-bits td{border-left-width:1px;padding:2px 6px}
.pvhb-output.pvhb-output .pvhb-steps td{white-space:normal;min-width:0}
.pvhb-output.pvhb-output .pvhb-steps code{white-space:pre-wrap}
.pvhb-output .pvhb-dim{opacity:.72}
.pvhb-output .pvhb-badge{border-radius:4px;padding:1px 8px;font-weight:600;border:1px solid currentColor}
.pvhb-output .pvhb-bit{display:inline-block;border:1px solid rgba(128,128,128,.55);border-radius:3px;padding:0 4px;\
margin:0 2px 2px 0;font-size:11px;opacity:.72}
.pvhb-output .pvhb-set{opacity:1;font-weight:600;background:rgba(56,139,253,.28);border-color:currentColor}
.pvhb-output .pvhb-bar{display:flex;max-width:60em;border:1px solid rgba(128,128,128,.55);margin:.4em 0}
.pvhb-output .pvhb-piece{box-sizing:border-box;min-width:3px;overflow:hidden;text-overflow:clip;white-space:nowrap;\
font-size:11px;line-height:1.3;padding:3px 2px;border-right:1px solid rgba(128,128,128,.55);flex-basis:0}
.pvhb-output .pvhb-piece:last-child{border-right:0}
.pvhb-output .pvhb-hole{background:repeating-linear-gradient(135deg,transparent 0 4px,rgba(128,128,128,.22) 4px 5px)}
.pvhb-output .pvhb-swatch{display:inline-block;width:.9em;height:.9em;vertical-align:-1px;\
border:1px solid rgba(128,128,128,.55);margin-right:5px}
"""
    + "".join(
        f".pvhb-output.pvhb-output .pvhb-{name}:not(tr),.pvhb-output.pvhb-output tr.pvhb-{name}>*{{background:{colour}}}\n"
        for name, colour in _COLOURS.items()
    )
).strip()
