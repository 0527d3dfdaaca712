"""One event a line, on stderr."""

import logging


def set_up_logging(level: str) -> None:
    """Set the process's logging up once."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True)
    for chatty in ("asyncio", "httpx", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))
