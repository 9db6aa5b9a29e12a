"""The terminal: texts are shown as they are, whatever they hold."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from hwcost.foreign import printable


class Screen(Console):
    """A console on which names of others are text: brackets are no styles, and control characters are escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text as printed; also the cells of tables come this way."""
        return super().render_str(printable(text), **options)
