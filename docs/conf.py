"""How Sphinx makes a site of these pages: `sphinx-build -W -b html docs site`. They are plain Markdown, and stay it."""

import sys
from pathlib import Path

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE / "_sphinx"))
sys.path.insert(1, str(_HERE.parent))

from shim.version import VERSION  # noqa: E402 - of this checkout, whatever is installed

project = "pvhboot"
author = "the authors of pvhboot"
release = version = VERSION

extensions = [
    "myst_parser",
    "assembly",  # how it is coloured
    "contents",  # what index.md lists becomes the sidebar
    "outside",  # links to files that are no pages lead to pages that show them
]
exclude_patterns = ["_sphinx", "generators", "examples"]
myst_heading_anchors = 4  # as a forge has them
highlight_language = "none"  # output is no language, whatever it looks like
suppress_warnings = ["misc.highlighting_failure"]  # JSON with an ellipsis in it is shown as it is

html_theme = "furo"
html_title = "pvhboot"
html_static_path = ["_sphinx/static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_theme_options = {
    # No fonts but those that the reader's machine has.
    "light_css_variables": {"font-stack": "system-ui, sans-serif", "font-stack--monospace": "ui-monospace, monospace"},
}
