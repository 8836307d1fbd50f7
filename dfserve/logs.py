"""Owns how the command-line tools log: plain lines on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC, RFC 3339), level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send dfserve's log to standard error. For the command-line tools; a library user sets up logging as they like."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    if stream.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(JsonLines())
    logger = logging.getLogger("dfserve")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
