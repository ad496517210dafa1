"""Two processes that wait for each other, without clocks: named pipes."""

import os
import select
from pathlib import Path

PATIENCE_S = 60  # a busy machine starts a process slowly


class Handshake:
    """`hello` says that the other process has come to a point, `go_on` lets it go on."""

    def __init__(self, folder: Path) -> None:
        self.held, self.let_go = folder / "held", folder / "let-go"
        os.mkfifo(self.held)
        os.mkfifo(self.let_go)
        self.reader = os.open(self.held, os.O_RDONLY | os.O_NONBLOCK)  # before the other opens it to write

    def close(self) -> None:
        os.close(self.reader)

    def hello(self) -> None:
        if not select.select([self.reader], [], [], PATIENCE_S)[0]:
            raise TimeoutError("the other process never came to the point")
        os.read(self.reader, 100)

    def go_on(self) -> None:
        self.let_go.write_text("go on\n")
