# SPDX-License-Identifier: GPL-2.0-or-later
def highlight(text: str, enabled: bool) -> str:
    return text
