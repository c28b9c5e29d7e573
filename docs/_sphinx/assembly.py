"""How assembly is coloured: that of the firmware, of which Pygments knows no dialect."""

from typing import Any, ClassVar

from pygments.lexer import RegexLexer, bygroups
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Text
from sphinx.application import Sphinx


class AssemblyLexer(RegexLexer):
    """Intel's syntax as GNU as has it: comments, labels, directives, instructions."""

    name = "pvhboot assembly"
    tokens: ClassVar[dict[str, Any]] = {
        "root": [
            (r"(#|//).*", Comment.Single),
            (r'"(\\.|[^"\\\n])*"', String),
            (r"^([\w.]+)(:)", bygroups(Name.Label, Text)),
            (r"^(\s*)(\.\w+)", bygroups(Text, Keyword.Pseudo)),
            (r"^(\s+)(\w+)", bygroups(Text, Name.Function)),
            (r"(?<=:)(\s+)(\w+)", bygroups(Text, Name.Function)),
            (r"\b(0x[0-9a-fA-F]+|\d+[bf]?)\b", Number),
            (r"\b(byte|word|dword|qword|ptr|offset|rep|repe|repne|lock)\b", Keyword),
            (r"\b(e?[abcd]x|[abcd][lh]|e?[sd]i|e?[sb]p|[cdefgs]s|cr[0-8]|dr[0-7])\b", Name.Builtin),
            (r"[-+*/|&~<>=]", Operator),
            (r"\w+", Name),
            (r"\s+|.", Text),
        ]
    }


def setup(app: Sphinx) -> dict[str, Any]:
    """As Sphinx wants it of an extension."""
    app.add_lexer("asm", AssemblyLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
