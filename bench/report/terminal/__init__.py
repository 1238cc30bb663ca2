"""Tables and live progress for a terminal; the only room that imports rich.

Text from records and from the user may hold anything. It reaches the screen as `Text`, never as
markup, and only through `bench.text.printable`.
"""

from bench.report.terminal.checks import checks as checks
from bench.report.terminal.comparisons import comparison as comparison
from bench.report.terminal.live import (
    LiveProgress as LiveProgress,
    transfer_progress as transfer_progress,
)
from bench.report.terminal.results import runs as runs, summary as summary
from bench.report.terminal.rows import rows as rows
from bench.report.terminal.scaling import scaling as scaling
from bench.report.terminal.standings import standings_table as standings_table
from bench.report.terminal.tables import (
    console_for as console_for,
    plain_lines as plain_lines,
    show as show,
)
from bench.report.terminal.timings import clocks as clocks
