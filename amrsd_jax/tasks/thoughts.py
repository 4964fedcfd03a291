"""Finds where the thoughts of a response end. Verifiers read only what follows."""


def after_thoughts(response: str) -> str:
    """Returns the text after the last `</think>`, or the whole response if nothing follows it."""
    final = response.rpartition("</think>")[2]
    return final if final.strip() else response
