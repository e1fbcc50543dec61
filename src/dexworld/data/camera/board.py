"""The board that a camera is calibrated with."""

from dataclasses import dataclass
from typing import Literal

DICTIONARIES = {"charuco": "DICT_5X5_1000", "apriltag": "DICT_APRILTAG_36h11"}


@dataclass(frozen=True)
class BoardConfig:
    """The board in the pictures."""

    board: Literal["charuco", "apriltag"] = "charuco"
    """`charuco`: a chessboard with markers in its white squares. `apriltag`: a grid of tags 36h11, numbered row by row
    from the top left."""
    columns: int = 7
    """Squares, or tags, in a row."""
    rows: int = 5
    """Rows of squares, or of tags."""
    square_m: float = 0.04
    """Side of a square, or from one tag's edge to the same edge of the next, metres."""
    marker_m: float = 0.03
    """Side of a marker or tag, metres."""
    dictionary: str | None = None
    """Name of OpenCV's dictionary; by default DICT_5X5_1000, and DICT_APRILTAG_36h11 for tags."""

    def __post_init__(self) -> None:
        if min(self.columns, self.rows) < 2:
            raise ValueError(f"--columns and --rows are {self.columns} and {self.rows}; a board has at least 2 of each")
        if not 0 < self.marker_m < self.square_m:
            sides = f"--marker-m is {self.marker_m} and --square-m {self.square_m}"
            raise ValueError(f"{sides}; markers must be smaller than squares")
        if self.square_m > 1:
            raise ValueError(f"--square-m is {self.square_m} m: is it in millimetres? Give metres")
