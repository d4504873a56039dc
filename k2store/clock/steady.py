"""Keeps the edges of a clock from stepping back."""


class Steady:
    """Remembers the largest edges ever shown.

    Both stay inside the contract: an earlier ``lo`` is still below the true time, and a larger
    ``hi`` only adds doubt.
    """

    __slots__ = ("_hi_ns", "_lo_ns", "_middle_x2_ns", "stepped_back_ns")

    def __init__(self) -> None:
        self._lo_ns = 0
        self._hi_ns = 0
        self._middle_x2_ns = 0
        self.stepped_back_ns = 0  # how far the last reading lay behind the latest one

    def hold(self, lo_ns: int, hi_ns: int) -> tuple[int, int]:
        """The reading ``(lo_ns, hi_ns)``, raised to what was already shown."""
        middle_x2_ns = lo_ns + hi_ns
        if middle_x2_ns < self._middle_x2_ns:
            self.stepped_back_ns = (self._middle_x2_ns - middle_x2_ns + 1) // 2
        else:
            self.stepped_back_ns = 0
            self._middle_x2_ns = middle_x2_ns
        self._lo_ns = max(self._lo_ns, lo_ns)
        self._hi_ns = max(self._hi_ns, hi_ns)
        return self._lo_ns, self._hi_ns
